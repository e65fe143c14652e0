package decide

import (
	"container/heap"
	"hash/fnv"
	"strconv"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// SeenDelivery is what the window of duplicates keeps of a delivery.
type SeenDelivery struct {
	Hash domain.DeliveryHash
	// Request is the fingerprint of the request's position: the same one is a redelivery, another one
	// is upstream asking again.
	Request uint64
	// AcceptedMs is the request's time in Unix milliseconds.
	AcceptedMs int64
	// EndedMs is when it came to its end, in Unix milliseconds, where that was a good while later; otherwise 0.
	EndedMs int64
	// TakenMs is when it was taken up, as far as it is known: the window's log has it as its records' time. 0: AcceptedMs.
	TakenMs int64
	// KeepMs is until when it is remembered at least: its expiry, since a record that Kafka hands out again before that would
	// be sent again. 0: for the window alone.
	KeepMs int64
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
func (d SeenDelivery) ID() domain.DeliveryID {
	return domain.NewDeliveryID(time.UnixMilli(d.AcceptedMs), d.Hash)
}

// window remembers deliveries, for its length from when they were taken up, and until they expire where that is later. It
// tells two things apart:
//
//   - The same request again, by its position: a redelivery, however old it is.
//   - Another request with the id: a duplicate, if the times of the two requests are less than the window apart. Neither is
//     compared with the clock, so an outage between them and us changes nothing; and an id that is used every day is
//     no duplicate of what was read late the day before.
//
// It costs about 70 bytes a delivery: at 1,000 deliveries a second on one partition and 24 hours, 6 GB, which is where more
// partitions or a shorter window are due. What is kept for longer costs 32 bytes more, and is written again to the log
// twice in a window, since Kafka forgets that log after one. What ended late it remembers from the end as well: it may
// be taken back.
type window struct {
	keep  time.Duration
	seen  map[domain.DeliveryHash]firstRequest
	order hashQueue // by arrival: those that are kept for the window
	long  longHeap  // the others
	ended map[domain.DeliveryHash]lateEnd
	last  hashQueue // of those that ended late, by their end
}

type lateEnd struct{ acceptedMs, endedMs int64 }

// hashQueue is first in, first out.
type hashQueue struct {
	list []domain.DeliveryHash
	head int
}

func (q *hashQueue) push(h domain.DeliveryHash) { q.list = append(q.list, h) }

// drop lets go of the oldest ones, as long as gone says so.
func (q *hashQueue) drop(gone func(domain.DeliveryHash) bool) {
	for q.head < len(q.list) && gone(q.list[q.head]) {
		q.head++
	}
	if q.head > 4096 && q.head > len(q.list)/2 {
		q.list = append([]domain.DeliveryHash(nil), q.list[q.head:]...)
		q.head = 0
	}
}

type firstRequest struct {
	request    uint64
	acceptedMs int64
	untilS     uint32 // Unix seconds, which fit until 2106
	long       bool   // among the long ones
}

func (r firstRequest) untilMs() int64 { return int64(r.untilS) * 1000 }

// longKept is a place in the queue of those that outlive the window: when it is to be written again, or forgotten.
type longKept struct {
	nextMs int64
	hash   domain.DeliveryHash
}

type longHeap []longKept

func (h longHeap) Len() int           { return len(h) }
func (h longHeap) Less(i, j int) bool { return h[i].nextMs < h[j].nextMs }
func (h longHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *longHeap) Push(x any)        { *h = append(*h, x.(longKept)) }
func (h *longHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func newWindow(keep time.Duration) window {
	return window{keep: keep, seen: map[domain.DeliveryHash]firstRequest{}, ended: map[domain.DeliveryHash]lateEnd{}}
}

// lookup is the delivery as the first request made it, if the request is the same, or another one within the window.
func (w *window) lookup(h domain.DeliveryHash, request uint64, accepted time.Time) (first SeenDelivery, ok bool) {
	r, ok := w.seen[h]
	return r.delivery(h), ok && (r.request == request || !w.after(r, accepted.UnixMilli()))
}

func (r firstRequest) delivery(h domain.DeliveryHash) SeenDelivery {
	return SeenDelivery{Hash: h, Request: r.request, AcceptedMs: r.acceptedMs, KeepMs: r.untilMs()}
}

// after: a request of that time is a new one with the same id.
func (w *window) after(r firstRequest, acceptedMs int64) bool {
	return acceptedMs >= r.acceptedMs+w.keep.Milliseconds()
}

// since is when a delivery was asked for that may still be taken back.
func (w *window) since(h domain.DeliveryHash) (at time.Time, ok bool) {
	if e, late := w.ended[h]; late {
		return time.UnixMilli(e.acceptedMs), true
	}
	r, ok := w.seen[h]
	return time.UnixMilli(r.acceptedMs), ok
}

// add remembers a delivery; the first request of a window stands, and the last end.
func (w *window) add(d SeenDelivery) {
	if r, known := w.seen[d.Hash]; !known || w.after(r, d.AcceptedMs) {
		taken := max(d.TakenMs, d.AcceptedMs)
		until := max(taken+w.keep.Milliseconds(), d.KeepMs)
		long := until > taken+w.keep.Milliseconds()
		w.seen[d.Hash] = firstRequest{d.Request, d.AcceptedMs, uint32((until + 999) / 1000), long}
		if long {
			heap.Push(&w.long, longKept{w.next(taken, until), d.Hash})
		} else {
			w.order.push(d.Hash)
		}
	}
	if d.EndedMs > w.ended[d.Hash].endedMs {
		w.ended[d.Hash] = lateEnd{d.AcceptedMs, d.EndedMs}
		w.last.push(d.Hash)
	}
}

// next is when one that was written at a time is to be looked at again, or forgotten. Half a window: an outage of the other half
// loses nothing.
func (w *window) next(writtenMs, untilMs int64) int64 {
	return min(writtenMs+w.keep.Milliseconds()/2, untilMs)
}

// end remembers that a delivery came to its end now; late says that it has to be written once more.
func (w *window) end(d SeenDelivery, now time.Time) (_ SeenDelivery, late bool) {
	if late = now.UnixMilli()-d.AcceptedMs > endedLate.Milliseconds(); late {
		d.EndedMs = now.UnixMilli()
		w.add(d)
	}
	return d, late
}

// forget drops what is remembered no longer. Arrivals are ordered by time but for delays, so an entry may stay a little
// longer behind a younger one; never shorter.
func (w *window) forget(now time.Time) {
	ms := now.UnixMilli()
	w.order.drop(func(h domain.DeliveryHash) bool {
		r, known := w.seen[h]
		gone := r.untilMs() < ms
		if gone && known && !r.long {
			delete(w.seen, h)
		}
		return gone || r.long // another one took its place
	})
	oldest := now.Add(-w.keep).UnixMilli()
	w.last.drop(func(h domain.DeliveryHash) bool {
		gone := w.ended[h].endedMs < oldest
		if gone {
			delete(w.ended, h)
		}
		return gone
	})
}

// rewrite forgets what outlived the window and expired, and says what of the rest is to be written again, a slice at a
// time.
func (w *window) rewrite(now time.Time) (again []SeenDelivery) {
	ms := now.UnixMilli()
	for n := 0; n < DueSlice && len(w.long) > 0 && w.long[0].nextMs <= ms; n++ {
		h := w.long[0].hash
		r, known := w.seen[h]
		if !known || !r.long || r.untilMs() <= ms {
			if r.long {
				delete(w.seen, h)
			}
			heap.Pop(&w.long)
			continue
		}
		again = append(again, r.delivery(h))
		w.long[0].nextMs = w.next(ms, r.untilMs())
		heap.Fix(&w.long, 0)
	}
	return again
}
