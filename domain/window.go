package domain

import (
	"hash/fnv"
	"strconv"
	"time"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// SeenDelivery is what the window of duplicates keeps of a delivery.
type SeenDelivery struct {
	Hash DeliveryHash
	// Request is the fingerprint of the request's position: the same one is a redelivery, another one
	// is upstream asking again.
	Request uint64
	// AcceptedMs is the request's time in Unix milliseconds.
	AcceptedMs int64
	// EndedMs is when it came to its end, in Unix milliseconds, where that was a good while later; otherwise 0.
	EndedMs int64
}

// endedLate is how long after the request an end is worth a record of its own: what is taken back is known for the
// window's length from its end, less this.
const endedLate = time.Minute

// FingerprintRequest is FNV-1a of the request's position.
func FingerprintRequest(p *whisperv1.Position) uint64 {
	h := fnv.New64a()
	var b [64]byte
	buf := append(b[:0], p.GetTopic()...)
	buf = append(buf, '/')
	buf = strconv.AppendInt(buf, int64(p.GetPartition()), 10)
	buf = append(buf, '/')
	buf = strconv.AppendInt(buf, p.GetOffset(), 10)
	_, _ = h.Write(buf) // never fails
	return h.Sum64()
}

// ID is the delivery id that the first request made.
func (d SeenDelivery) ID() DeliveryID { return NewDeliveryID(time.UnixMilli(d.AcceptedMs), d.Hash) }

// window remembers deliveries for a while from their request: they are duplicates when they come again. It costs about
// 60 bytes a delivery: at 1,000 deliveries a second on one partition and 24 hours, 5 GB, which is where more partitions or
// a shorter window are due. What ended later than that it remembers from the end as well: it may be taken back.
type window struct {
	keep  time.Duration
	seen  map[DeliveryHash]firstRequest
	order hashQueue // by arrival
	ended map[DeliveryHash]lateEnd
	last  hashQueue // of those that ended late, by their end
}

type lateEnd struct{ acceptedMs, endedMs int64 }

// hashQueue is first in, first out.
type hashQueue struct {
	list []DeliveryHash
	head int
}

func (q *hashQueue) push(h DeliveryHash) { q.list = append(q.list, h) }

// drop lets go of the oldest ones, as long as gone says so.
func (q *hashQueue) drop(gone func(DeliveryHash) bool) {
	for q.head < len(q.list) && gone(q.list[q.head]) {
		q.head++
	}
	if q.head > 4096 && q.head > len(q.list)/2 {
		q.list = append([]DeliveryHash(nil), q.list[q.head:]...)
		q.head = 0
	}
}

type firstRequest struct {
	request    uint64
	acceptedMs int64
}

func newWindow(keep time.Duration) window {
	return window{keep: keep, seen: map[DeliveryHash]firstRequest{}, ended: map[DeliveryHash]lateEnd{}}
}

// lookup is the delivery as the first request made it.
func (w *window) lookup(h DeliveryHash) (first SeenDelivery, ok bool) {
	r, ok := w.seen[h]
	return SeenDelivery{Hash: h, Request: r.request, AcceptedMs: r.acceptedMs}, ok
}

// since is when a delivery was asked for that may still be taken back.
func (w *window) since(h DeliveryHash) (at time.Time, ok bool) {
	if e, late := w.ended[h]; late {
		return time.UnixMilli(e.acceptedMs), true
	}
	r, ok := w.seen[h]
	return time.UnixMilli(r.acceptedMs), ok
}

// add remembers a delivery; the first request stands, and the last end.
func (w *window) add(d SeenDelivery) {
	if _, ok := w.seen[d.Hash]; !ok {
		w.seen[d.Hash] = firstRequest{d.Request, d.AcceptedMs}
		w.order.push(d.Hash)
	}
	if d.EndedMs > w.ended[d.Hash].endedMs {
		w.ended[d.Hash] = lateEnd{d.AcceptedMs, d.EndedMs}
		w.last.push(d.Hash)
	}
}

// end remembers that a delivery came to its end now; late says that it has to be written once more.
func (w *window) end(d SeenDelivery, now time.Time) (_ SeenDelivery, late bool) {
	if late = now.UnixMilli()-d.AcceptedMs > endedLate.Milliseconds(); late {
		d.EndedMs = now.UnixMilli()
		w.add(d)
	}
	return d, late
}

// forget drops what left the window. Arrivals are ordered by time but for lanes and delays, so an entry
// may stay a little longer behind a younger one; never shorter.
func (w *window) forget(now time.Time) {
	oldest := now.Add(-w.keep).UnixMilli()
	w.order.drop(func(h DeliveryHash) bool {
		gone := w.seen[h].acceptedMs < oldest
		if gone {
			delete(w.seen, h)
		}
		return gone
	})
	w.last.drop(func(h DeliveryHash) bool {
		gone := w.ended[h].endedMs < oldest
		if gone {
			delete(w.ended, h)
		}
		return gone
	})
}
