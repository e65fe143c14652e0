package projections

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// encodedRow is a delivery as the benchmark and the test encode it: sent by push, with most columns.
func encodedRow() row {
	return row{
		id: domain.NewDeliveryID(now, domain.HashDelivery("n-1", "mona")), notificationID: "n-1", userID: "mona",
		lane: whisperv1.Lane_LANE_NORMAL, status: domain.Sent, request: position{"whisper.requests.normal", 3, 77},
		asked:    asked{known: true, category: "transactions.card", template: "card", templateVersion: 3, expiresAt: now.Add(time.Hour).UnixMicro()},
		attempts: 1, channel: domain.ChannelAPNs, sentAt: now.Add(time.Second).UnixMicro(), pushedAt: now.Add(time.Second).UnixMicro(),
		dueAt: now.UnixMicro(), noted: note{known: true, status: domain.Accepted, at: now.UnixMicro()},
	}
}

// pgxRow appends a row as pgx does for a COPY: each value by the codec that the map finds for its type.
func pgxRow(m *pgtype.Map, buf []byte, r *row, day int32) ([]byte, error) {
	at := func(us int64) any {
		if us == 0 {
			return nil
		}
		return time.UnixMicro(us)
	}
	text := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	values := [...]any{
		[16]byte(r.id), dayTime(day), r.notificationID, r.userID, domain.LaneOf(r.lane).String(), r.category, r.status.String(), text(r.reason()),
		text(r.channel), r.attempts, r.id.Time(), at(r.sentAt), at(r.deliveredAt), at(r.readAt), at(r.settledAt()), at(r.pushedAt), at(r.endedAt),
		r.noted.status.String(), at(r.noted.at), text(r.noted.reason), r.request.topic, r.request.partition, r.request.offset, r.template,
		r.templateVersion, at(r.expiresAt), at(r.sendAt), r.broadcast, at(r.dueAt),
	}
	buf = binary.BigEndian.AppendUint16(buf, uint16(len(values)))
	for i, v := range values {
		start := len(buf)
		buf = binary.BigEndian.AppendUint32(buf, math.MaxUint32)
		encoded, err := m.Encode(deliveryTypes[i], pgtype.BinaryFormatCode, v, buf)
		if err != nil {
			return nil, err
		}
		if encoded != nil { // else a null
			buf = encoded
			binary.BigEndian.PutUint32(buf[start:], uint32(len(buf)-start-4))
		}
	}
	return buf, nil
}

// TestARowIsEncodedAsPgxEncodesIt, so that what we write by hand is what Postgres's own formats say.
func TestARowIsEncodedAsPgxEncodesIt(t *testing.T) {
	t.Parallel()
	r, day := encodedRow(), dayOfUS(now.UnixMicro())
	rows := newCopy(len(deliveryTypes), 1024)
	header := len(rows.field)
	f := rows.add()
	addRow(func(int) *field { return f }, &r, day)
	want, err := pgxRow(pgtype.NewMap(), nil, &r, day)
	if err != nil {
		t.Fatal(err)
	}
	if got := []byte(rows.field[header:]); !bytes.Equal(got, want) {
		t.Errorf("encoded by hand\n%x, by pgx\n%x", got, want)
	}
}

// BenchmarkEncode encodes a row of `deliveries` for a COPY, by hand and by pgx.
//
//	go test ./projections -run '^$' -bench Encode -count 5
func BenchmarkEncode(b *testing.B) {
	r, day := encodedRow(), dayOfUS(now.UnixMicro())
	b.Run("by hand", func(b *testing.B) {
		b.ReportAllocs()
		rows := newCopy(len(deliveryTypes), 1024)
		for b.Loop() {
			rows.field = rows.field[:0]
			f := rows.add()
			addRow(func(int) *field { return f }, &r, day)
		}
	})
	b.Run("by pgx", func(b *testing.B) {
		b.ReportAllocs()
		m, buf := pgtype.NewMap(), make([]byte, 0, 1024)
		for b.Loop() {
			var err error
			if buf, err = pgxRow(m, buf[:0], &r, day); err != nil {
				b.Fatal(err)
			}
		}
	})
}
