package request

import (
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/record"
	"github.com/klivvr/whisper/domain/rfc3339"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// readJSON reads the fields of the JSON form, or returns false if it can't go on. Strings without escapes share one
// copy of the record.
func (d *draft) readJSON(value []byte) bool {
	text, ok := record.Open(value, "the request", &d.Problems)
	if !ok {
		return false
	}
	object := record.Fields{Known: requestFields}
	c := record.NewCursor(text)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		at, _ := object.Take(key, &d.Problems)
		if at < 0 || raw == "null" {
			continue // null is how some encoders write a field that is not set
		}
		d.read(at, func() { d.readField(at, raw) })
	}
	return true
}

func (d *draft) readField(at int, raw string) {
	name := requestFields[at]
	switch at {
	case atID:
		d.ID = d.Text(name, raw)
	case atCategory:
		d.Category = d.Text(name, raw)
	case atTo:
		d.readAudience(raw)
	case atTemplate:
		d.Template = d.Text(name, raw)
	case atVariables:
		d.Variables = d.Free(name, raw, MaxVariablesBytes)
	case atContent:
		d.readContent(raw)
	case atChannels:
		d.Channels = d.texts(name, raw)
	case atCollapseKey:
		d.CollapseKey = d.Text(name, raw)
	case atSendAt:
		d.readSendAt(raw)
	case atTTL:
		d.readTTL(raw)
	case atRate:
		d.readRate(raw)
	case atSendAtLocal:
		d.SendAtLocal = d.Text(name, raw)
	default:
		d.verb(at, d.Text(name, raw))
	}
}

var audienceFields = []string{"users", "segment", "all", "connected"}

func (d *draft) readAudience(raw string) {
	if !d.Object("to", raw) {
		return
	}
	to := record.Fields{Path: "to", Known: audienceFields}
	c := record.NewCursor(raw)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		at, name := to.Take(key, &d.Problems)
		if at < 0 || raw == "null" {
			continue
		}
		switch at {
		case 0:
			d.users = d.texts("to.users", raw)
		case 1:
			d.segment = d.Text("to.segment", raw)
		case 2, 3:
			if raw == "false" { // as good as left out
				continue
			}
			if raw != "true" {
				d.Add(record.WordWrongType, "to.%s must be true, not %s", name, record.Kind(raw))
			}
		}
		d.audiences = append(d.audiences, name)
	}
}

// texts reads a list of strings.
func (d *draft) texts(path, raw string) []string {
	if raw[0] != '[' {
		d.Add(record.WordWrongType, "%s must be a list of strings, not %s", path, record.Kind(raw))
		return nil
	}
	var list []string
	c := record.NewCursor(raw)
	for item, ok := c.Item(); ok; item, ok = c.Item() {
		s, err := record.Text(item)
		if err != nil {
			word := record.WordWrongType
			if item[0] == '"' {
				word = record.WordMalformed
			}
			d.Add(word, "%s[%d] %v", path, len(list), err)
			s = "?" // keeps the places of those after it, and is complained about once
		}
		list = append(list, s)
	}
	return list
}

func (d *draft) readContent(raw string) {
	if !d.Object("content", raw) {
		return
	}
	d.Content = &whisperv1.Content{}
	content := record.Fields{Path: "content", Known: domain.ContentFields}
	c := record.NewCursor(raw)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		at, _ := content.Take(key, &d.Problems)
		if at < 0 || raw == "null" {
			continue
		}
		switch at {
		case 0:
			d.Content.Title = d.Text("content.title", raw)
		case 1:
			d.Content.Body = d.Text("content.body", raw)
		case 2:
			d.Content.Url = d.Text("content.url", raw)
		case 3:
			d.Content.Image = d.Text("content.image", raw)
		case 4:
			d.Content.Data = d.Free("content.data", raw, domain.MaxDataBytes)
		}
	}
}

func (d *draft) readSendAt(raw string) {
	s, err := record.Text(raw)
	if err != nil {
		d.Add(record.WordWrongType, `send_at must be a time such as "2026-11-23T09:00:00Z", not %s`, record.Kind(raw))
		return
	}
	at, err := rfc3339.Parse(s)
	if err != nil {
		d.Add(record.WordTime, "send_at %s %v", record.Cited(s), err)
		return
	}
	d.SendAt = at.UTC()
	d.checkSendAt()
}

func (d *draft) readTTL(raw string) {
	s, err := record.Text(raw)
	if err != nil {
		d.Add(record.WordWrongType, `ttl must be a duration such as "90s", "15m" or "24h", not %s`, record.Kind(raw))
		return
	}
	ttl, err := time.ParseDuration(s)
	if err != nil {
		d.Add(record.WordTime, `ttl %s is not a duration such as "90s", "15m" or "24h"`, record.Cited(s))
		return
	}
	d.TTL = ttl
}
