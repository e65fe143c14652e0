package request

import (
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/record"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// readProto reads the fields of the Protobuf form. An empty string can't be told from a missing one there, so it counts
// as left out. Everything else is as in the JSON form.
func (d *draft) readProto(value []byte) bool {
	var req whisperv1.Request
	if err := proto.Unmarshal(value, &req); err != nil {
		// The library varies the blanks of its error texts on purpose, to keep people from comparing them.
		why := strings.TrimSpace(strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto:"))
		d.Add(record.WordMalformed, "the request is not a whisper.v1.Request in Protobuf: %s", why)
		return false
	}
	d.readProtoText(atID, &d.ID, req.GetId())
	d.readProtoText(atCategory, &d.Category, req.GetCategory())
	d.readProtoText(atTemplate, &d.Template, req.GetTemplate())
	d.readProtoText(atCollapseKey, &d.CollapseKey, req.GetCollapseKey())
	d.Channels = req.GetChannels()
	if to := req.GetTo(); to != nil {
		d.read(atTo, func() { d.readProtoAudience(to) })
	}
	if v := req.GetVariables(); len(v) > 0 {
		d.read(atVariables, func() { d.Variables = d.FreeBytes("variables", v, MaxVariablesBytes) })
	}
	if c := req.GetContent(); c != nil {
		d.read(atContent, func() { d.readProtoContent(c) })
	}
	d.readProtoTimes(&req)
	d.readProtoText(atSendAtLocal, &d.SendAtLocal, req.GetSendAtLocal())
	if rate := req.GetRate(); rate != 0 {
		d.read(atRate, func() { d.Rate = rate })
	}
	d.readProtoCommand(&req)
	return true
}

func (d *draft) readProtoText(at int, field *string, text string) {
	if text != "" {
		d.read(at, func() { *field = text })
	}
}

func (d *draft) readProtoAudience(to *whisperv1.Audience) {
	switch a := to.GetAudience().(type) {
	case *whisperv1.Audience_Users:
		d.audiences, d.users = audienceFields[0:1], a.Users.GetIds()
	case *whisperv1.Audience_Segment:
		d.audiences, d.segment = audienceFields[1:2], a.Segment
	case *whisperv1.Audience_All:
		if a.All {
			d.audiences = audienceFields[2:3]
		}
	case *whisperv1.Audience_Connected:
		if d.audiences = audienceFields[3:4]; a.Connected.GetSegment() != "" {
			d.audiences, d.segment = []string{audienceFields[1], audienceFields[3]}, a.Connected.GetSegment()
		}
	case nil: // or an audience of a newer version
	}
}

// readProtoContent builds the content again, so that fields of a newer version are not handed on unchecked.
func (d *draft) readProtoContent(c *whisperv1.Content) {
	d.Content = &whisperv1.Content{Title: c.GetTitle(), Body: c.GetBody(), Url: c.GetUrl(), Image: c.GetImage()}
	if len(c.GetData()) > 0 {
		d.Content.Data = d.FreeBytes("content.data", c.GetData(), domain.MaxDataBytes)
	}
}

func (d *draft) readProtoTimes(req *whisperv1.Request) {
	if at := req.GetSendAt(); at != nil {
		d.read(atSendAt, func() {
			if d.SendAt = at.AsTime(); at.CheckValid() != nil {
				d.Add(record.WordTime, "send_at is out of range: %d seconds, %d nanoseconds", at.GetSeconds(), at.GetNanos())
				return
			}
			d.checkSendAt()
		})
	}
	if ttl := req.GetTtl(); ttl != nil {
		d.read(atTTL, func() {
			if d.TTL = ttl.AsDuration(); ttl.CheckValid() != nil {
				d.Add(record.WordTime, "ttl is out of range: %d seconds, %d nanoseconds", ttl.GetSeconds(), ttl.GetNanos())
			}
		})
	}
}

func (d *draft) readProtoCommand(req *whisperv1.Request) {
	switch c := req.GetCommand().(type) {
	case *whisperv1.Request_Cancel:
		d.verb(atCancel, c.Cancel)
	case *whisperv1.Request_Pause:
		d.verb(atPause, c.Pause)
	case *whisperv1.Request_Resume:
		d.verb(atResume, c.Resume)
	case *whisperv1.Request_Retract:
		d.verb(atRetract, c.Retract)
	case nil:
	}
}
