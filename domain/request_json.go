package domain

import (
	"time"

	"github.com/klivvr/whisper/domain/rfc3339"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// readJSON takes the fields of the JSON form; false where there is nothing to go on with. Strings
// without escapes share one copy of the record.
func (d *draft) readJSON(value []byte) bool {
	text, ok := openJSON(value, "the request", &d.problems)
	if !ok {
		return false
	}
	object := fields{known: requestFields}
	c := newCursor(text)
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		at, _ := object.take(key, &d.problems)
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
		d.ID = d.text(name, raw)
	case atCategory:
		d.Category = d.text(name, raw)
	case atTo:
		d.readAudience(raw)
	case atTemplate:
		d.Template = d.text(name, raw)
	case atVariables:
		d.Variables = d.free(name, raw, MaxVariablesBytes)
	case atContent:
		d.readContent(raw)
	case atChannels:
		d.Channels = d.texts(name, raw)
	case atCollapseKey:
		d.CollapseKey = d.text(name, raw)
	case atSendAt:
		d.readSendAt(raw)
	case atTTL:
		d.readTTL(raw)
	case atRate:
		d.readRate(raw)
	case atSendAtLocal:
		d.SendAtLocal = d.text(name, raw)
	default:
		d.verb(at, d.text(name, raw))
	}
}

var audienceFields = []string{"users", "segment", "all"}

func (d *draft) readAudience(raw string) {
	if !d.object("to", raw) {
		return
	}
	to := fields{path: "to", known: audienceFields}
	c := newCursor(raw)
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		at, name := to.take(key, &d.problems)
		if at < 0 || raw == "null" {
			continue
		}
		switch at {
		case 0:
			d.users = d.texts("to.users", raw)
		case 1:
			d.segment = d.text("to.segment", raw)
		case 2:
			if raw == "false" { // as good as left out
				continue
			}
			if raw != "true" {
				d.add(WordWrongType, "to.all must be true, not %s", jsonKind(raw))
			}
		}
		d.audiences = append(d.audiences, name)
	}
}

// texts reads a list of strings.
func (d *draft) texts(path, raw string) []string {
	if raw[0] != '[' {
		d.add(WordWrongType, "%s must be a list of strings, not %s", path, jsonKind(raw))
		return nil
	}
	var list []string
	c := newCursor(raw)
	for item, ok := c.item(); ok; item, ok = c.item() {
		s, err := jsonText(item)
		if err != nil {
			word := WordWrongType
			if item[0] == '"' {
				word = WordMalformed
			}
			d.add(word, "%s[%d] %v", path, len(list), err)
			s = "?" // keeps the places of those after it, and is complained about once
		}
		list = append(list, s)
	}
	return list
}

func (d *draft) readContent(raw string) {
	if !d.object("content", raw) {
		return
	}
	d.Content = &whisperv1.Content{}
	content := fields{path: "content", known: contentFields}
	c := newCursor(raw)
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		at, _ := content.take(key, &d.problems)
		if at < 0 || raw == "null" {
			continue
		}
		switch at {
		case 0:
			d.Content.Title = d.text("content.title", raw)
		case 1:
			d.Content.Body = d.text("content.body", raw)
		case 2:
			d.Content.Url = d.text("content.url", raw)
		case 3:
			d.Content.Image = d.text("content.image", raw)
		case 4:
			d.Content.Data = d.free("content.data", raw, MaxDataBytes)
		}
	}
}

func (d *draft) readSendAt(raw string) {
	s, err := jsonText(raw)
	if err != nil {
		d.add(WordWrongType, `send_at must be a time such as "2026-11-23T09:00:00Z", not %s`, jsonKind(raw))
		return
	}
	at, err := rfc3339.Parse(s)
	if err != nil {
		d.add(WordTime, "send_at %s %v", cited(s), err)
		return
	}
	d.SendAt = at.UTC()
	d.checkSendAt()
}

func (d *draft) readTTL(raw string) {
	s, err := jsonText(raw)
	if err != nil {
		d.add(WordWrongType, `ttl must be a duration such as "90s", "15m" or "24h", not %s`, jsonKind(raw))
		return
	}
	ttl, err := time.ParseDuration(s)
	if err != nil {
		d.add(WordTime, `ttl %s is not a duration such as "90s", "15m" or "24h"`, cited(s))
		return
	}
	d.TTL = ttl
}
