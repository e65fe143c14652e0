package gateway

import (
	"container/list"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// handshakes are the connections that net/http holds: accepted, and not yet a session or gone. They have a room
// of limit places; more than can be let in within HandshakeTimeout would only use up files and memory. Silent
// connections keep nobody out: when the room is full, the oldest one whose request is not whole goes. When
// every place belongs to a request that is just being answered, a newcomer waits for its 503 aside, in one of
// lateRoom places. Each costs some 200 bytes here; accepting one costs the same for any number, but for a full
// room with an address that holds much of it, which is searched for that address's oldest.
type handshakes struct {
	limit   atomic.Int64
	open    atomic.Int64
	refused *metrics.Counter
	address *addresses
	proxies *proxies

	mu     sync.Mutex
	byConn map[net.Conn]*handshake
	silent list.List // of *handshake: those whose request is not whole, the oldest first
	late   list.List // those who will only be refused
	held   counts
}

// lateRoom is how many more than limit may wait to be refused.
const lateRoom = 32

// aQuarter of the room is what one address may have in silent connections while the room is full.
const aQuarter = 4

// handshake is one connection until it is a session or answered.
type handshake struct {
	all    *handshakes
	conn   net.Conn
	from   address // of who holds the place in the room
	in     *list.List
	place  *list.Element
	gone   bool
	refuse int // the status that it will be answered with; 0: it is looked at

	counted address // by addresses, to be given back; a session takes it over
}

func newHandshakes(limit int64, refused *metrics.Counter, a *addresses, p *proxies) *handshakes {
	h := &handshakes{refused: refused, address: a, proxies: p, byConn: map[net.Conn]*handshake{}, held: counts{}}
	h.limit.Store(limit)
	return h
}

type handshakeKey struct{}

// accepted is called for every connection, before anything is read of it.
func (h *handshakes) accepted(ctx context.Context, conn net.Conn) context.Context {
	hs := &handshake{all: h, conn: conn, from: h.proxies.atAccept(conn)}
	h.mu.Lock()
	victims := h.makeRoom(hs)
	h.byConn[conn] = hs
	h.held.add(hs.from)
	h.open.Add(1)
	if hs.refuse != 0 {
		hs.wait(&h.late, false)
	} else {
		hs.wait(&h.silent, false)
	}
	h.mu.Unlock()
	for _, v := range victims {
		v.dismiss()
	}
	return context.WithValue(ctx, handshakeKey{}, hs)
}

// makeRoom finds a place for hs, or what it will be refused with; under the lock. The victims are out of the room.
func (h *handshakes) makeRoom(hs *handshake) (victims []*handshake) {
	if !h.address.add(hs.from) {
		v := h.oldest(&h.silent, hs.from)
		if v == nil {
			v = h.oldest(&h.late, hs.from)
		}
		if v != nil {
			victims = append(victims, h.drop(v))
		}
		if v == nil || !h.address.add(hs.from) {
			hs.refuse = http.StatusTooManyRequests
		} else {
			hs.counted = hs.from
		}
	} else {
		hs.counted = hs.from
	}
	if h.open.Load() >= h.limit.Load() && hs.refuse == 0 {
		if v := h.leastWorth(hs.from); v != nil {
			victims = append(victims, h.drop(v))
		} else {
			hs.refuse = http.StatusServiceUnavailable
		}
	}
	if hs.refuse != 0 && h.late.Len() >= lateRoom {
		victims = append(victims, h.drop(h.late.Front().Value.(*handshake)))
	}
	return victims
}

// leastWorth is who goes from a full room for a newcomer: the oldest silent one, of the newcomer's own address
// where that holds a quarter of the room already; nil: nobody is silent.
func (h *handshakes) leastWorth(from address) *handshake {
	if from.IsValid() && int64(h.held[from])*aQuarter > h.limit.Load() {
		if v := h.oldest(&h.silent, from); v != nil {
			return v
		}
	}
	if first := h.silent.Front(); first != nil {
		return first.Value.(*handshake)
	}
	return nil
}

func (h *handshakes) oldest(in *list.List, from address) *handshake {
	for e := in.Front(); e != nil; e = e.Next() {
		if hs := e.Value.(*handshake); hs.from == from {
			return hs
		}
	}
	return nil
}

// drop takes one out of the room; under the lock, idempotent.
func (h *handshakes) drop(hs *handshake) *handshake {
	if hs.gone {
		return hs
	}
	hs.gone = true
	hs.leave()
	delete(h.byConn, hs.conn)
	h.held.remove(hs.from)
	h.open.Add(-1)
	h.address.remove(hs.counted)
	hs.counted = address{}
	return hs
}

func (hs *handshake) wait(in *list.List, first bool) {
	hs.in = in
	if first {
		hs.place = in.PushFront(hs)
	} else {
		hs.place = in.PushBack(hs)
	}
}

func (hs *handshake) leave() {
	if hs.place != nil {
		hs.in.Remove(hs.place)
		hs.place = nil
	}
}

// state is net/http's word on a connection.
func (h *handshakes) state(conn net.Conn, state http.ConnState) {
	if state != http.StateHijacked && state != http.StateClosed {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if hs := h.byConn[conn]; hs != nil {
		h.drop(hs)
	}
}

// of is the handshake of a request; one of another server's has none and gets one that is in no room.
func (h *handshakes) of(r *http.Request) *handshake {
	if hs, ok := r.Context().Value(handshakeKey{}).(*handshake); ok {
		return hs
	}
	return &handshake{all: h, gone: true}
}

// asked: the request is whole, and is answered from now on. It says with which status to refuse it; 0: none.
func (hs *handshake) asked() (refuse int) {
	hs.all.mu.Lock()
	defer hs.all.mu.Unlock()
	hs.leave()
	return hs.refuse
}

// answered: what is left of the connection is worth less than any that may still ask.
func (hs *handshake) answered() {
	hs.all.mu.Lock()
	defer hs.all.mu.Unlock()
	if !hs.gone && hs.place == nil {
		hs.wait(&hs.all.silent, true)
	}
	hs.all.address.remove(hs.counted)
	hs.counted = address{}
}

// count has the connection count for an address, which is known for sure only once the request is there;
// false: that address has too many.
func (hs *handshake) count(from address) bool {
	hs.all.mu.Lock()
	defer hs.all.mu.Unlock()
	if hs.counted == from {
		return true
	}
	if !hs.all.address.add(from) {
		return false
	}
	hs.all.address.remove(hs.counted)
	hs.counted = from
	return true
}

// handOver: a session answers for the count from now on.
func (hs *handshake) handOver() (counted address) {
	hs.all.mu.Lock()
	defer hs.all.mu.Unlock()
	counted, hs.counted = hs.counted, address{}
	return counted
}

// dismiss ends a connection that made room for another. Where the peer can be told in the clear, it is told when
// to come again; a request that is on its way just now may still meet a reset.
func (hs *handshake) dismiss() {
	hs.all.refused.Inc()
	if _, secret := hs.conn.(*tls.Conn); !secret {
		const text = "too many connections that say nothing\n"
		_ = hs.conn.SetWriteDeadline(time.Now().Add(time.Second)) // its buffer is empty: this does not wait
		_, _ = fmt.Fprintf(hs.conn, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nConnection: close\r\n"+
			"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s", seconds(jitter(time.Second, 4*time.Second)), len(text), text)
	}
	closeUnder(hs.conn)
}

// closeUnder closes the connection below TLS, whose goodbye would wait for a handshake that is under way.
func closeUnder(conn net.Conn) {
	if secret, ok := conn.(*tls.Conn); ok {
		conn = secret.NetConn()
	}
	_ = conn.Close()
}
