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
}

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

// window remembers deliveries for a while. It costs about 60 bytes a delivery: at 1,000 deliveries a
// second on one partition and 24 hours, 5 GB, which is where more partitions or a shorter window are due.
type window struct {
	keep  time.Duration
	seen  map[DeliveryHash]firstRequest
	order []DeliveryHash // by arrival; head is the oldest
	head  int
}

type firstRequest struct {
	request    uint64
	acceptedMs int64
}

func newWindow(keep time.Duration) window {
	return window{keep: keep, seen: map[DeliveryHash]firstRequest{}}
}

// lookup is the delivery as the first request made it.
func (w *window) lookup(h DeliveryHash) (first SeenDelivery, ok bool) {
	r, ok := w.seen[h]
	return SeenDelivery{Hash: h, Request: r.request, AcceptedMs: r.acceptedMs}, ok
}

// add remembers a delivery; the first request stands.
func (w *window) add(d SeenDelivery) {
	if _, ok := w.seen[d.Hash]; ok {
		return
	}
	w.seen[d.Hash] = firstRequest{d.Request, d.AcceptedMs}
	w.order = append(w.order, d.Hash)
}

// forget drops what left the window. Arrivals are ordered by time but for lanes and delays, so an entry
// may stay a little longer behind a younger one; never shorter.
func (w *window) forget(now time.Time) {
	oldest := now.Add(-w.keep).UnixMilli()
	for w.head < len(w.order) && w.seen[w.order[w.head]].acceptedMs < oldest {
		delete(w.seen, w.order[w.head])
		w.head++
	}
	if w.head > 4096 && w.head > len(w.order)/2 {
		w.order = append([]DeliveryHash(nil), w.order[w.head:]...)
		w.head = 0
	}
}
