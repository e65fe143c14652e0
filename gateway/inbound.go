package gateway

import (
	"errors"
	"time"
	"unicode/utf8"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/request"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// received takes what the socket had; one goroutine at a time calls it. b may be changed and is not kept.
func (s *session) received(b []byte) {
	now := s.g.now()
	if s.deaf() {
		return // read only so that the peer gets the close frame: closing over unread bytes would reset it
	}
	b = s.in.begin(b)
	for {
		if wait := s.ids.debt(now, idRoom); wait > 0 {
			s.in.end(b)
			s.rest(now + int64(wait))
			return
		}
		f, n, bad := s.in.next(b)
		if bad == nil && n == 0 {
			break
		}
		if bad != nil {
			s.fail(bad)
			s.in = frameReader{}
			return
		}
		b = b[n:]
		s.heard.Store(now)
		if !s.inFrame(f, now) {
			s.in = frameReader{}
			return
		}
	}
	s.in.end(b)
}

// owe has the session pay what its user owes: until then nothing of it is read. It has no room of its own then.
func (s *session) owe(now int64, debt time.Duration) {
	if debt > 0 {
		s.ids = max(s.ids, meter(now+int64(debt+idRoom)))
	}
}

// rest reads nothing more until a time: the session has used its share. What its client goes on sending waits in
// its socket, nothing of it is lost, and its silence meanwhile is not held against it.
func (s *session) rest(until int64) {
	s.g.metrics.rests.Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != open {
		s.deafened = true // there is no time to wait for it
		return
	}
	s.restsUntil = until
	s.link.pause()
	s.rearm()
}

// proceed: the session's share is paid for; whoever reads goes on with what it has of it.
func (s *session) proceed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != freed {
		s.link.resume()
	}
}

// deaf: who was refused, broke the protocol or said goodbye is not listened to any more. In every other
// close the acknowledgements that were on their way still count.
func (s *session) deaf() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase != open && (s.user == "" || s.deafened || closeCodes[int(s.code)] == byProtocol)
}

// inFrame handles one frame; false: nothing more is to be read.
func (s *session) inFrame(f inFrame, now int64) bool {
	// Fragments are bounded by the size of what they make up, as long as there is something in them.
	free := f.op == opContinuation && len(f.payload) > 0
	if !free && !s.frames.allow(now, s.priceFrame(), time.Second) {
		return s.fail(badFrame(codeTooFast, "more than %d frames a second", s.g.cfg.MaxFrameRate))
	}
	switch f.op {
	case opText:
		return s.text(f.payload)
	case opPing:
		s.control(encodeFrame(opPong, f.payload))
	case opClose:
		s.peerClosed(closeCodeOf(f.payload))
		return false
	}
	return true
}

func (s *session) text(payload []byte) bool {
	if !utf8.Valid(payload) {
		return s.fail(notUTF8("a text frame"))
	}
	f, bad := decodeFrame(payload)
	if bad == nil {
		bad = s.handle(f)
	}
	return s.fail(bad)
}

func (s *session) handle(f clientFrame) *protocolError {
	if f.Type == "refresh" {
		s.g.metrics.refreshes.Inc()
		return s.refresh(f.Token)
	}
	if len(f.IDs) > maxIDs {
		return badFrame(codeBadIDs, "%s: %d ids, at most %d in a frame; none of them counts", f.Type, len(f.IDs), maxIDs)
	}
	f.distinct()
	switch f.Type {
	case "read":
		s.g.metrics.reads.Inc()
		return s.reads(&f)
	default:
		s.g.metrics.acks.Inc()
		return s.acks(&f)
	}
}

// maxIDs bounds the work that one frame asks for.
const maxIDs = 256

func (s *session) priceFrame() price { return time.Second / time.Duration(s.g.cfg.MaxFrameRate) }

func (s *session) priceStrangerOfUser() price {
	return priceStranger / time.Duration(s.g.cfg.MaxPerUser)
}

// distinct drops repeats, in place; the order stays. The same id with another receipt is another delivery.
func (f *clientFrame) distinct() {
	if len(f.IDs) < 2 {
		return
	}
	type named struct{ id, receipt string }
	seen := make(map[named]struct{}, len(f.IDs))
	n := 0
	for i, id := range f.IDs {
		of := named{id, f.receipt(i)}
		if _, twice := seen[of]; twice {
			continue
		}
		seen[of] = struct{}{}
		f.IDs[n] = id
		if len(f.Receipts) > 0 {
			f.Receipts[n] = of.receipt
		}
		n++
	}
	f.IDs = f.IDs[:n]
	if len(f.Receipts) > 0 {
		f.Receipts = f.Receipts[:n]
	}
}

// acks settles those that this session was sent and names one of those that it was not.
func (s *session) acks(f *clientFrame) *protocolError {
	var unknown string
	strangers := 0
	for i, id := range f.IDs {
		if d := s.acknowledge(id, f.receipt(i), false); d != nil {
			d.acked()
		} else {
			unknown = id
			strangers++
			s.ids.charge(s.g.now(), priceID)
		}
	}
	if strangers == 0 {
		return nil
	}
	return badFrame(codeUnknownID, "ack: %d of %d ids were never sent to this session, like %q", strangers, len(f.IDs), cut(unknown))
}

// deliveryID is the delivery that a client speaks of: exactly, or without its time where there is no receipt.
func (s *session) deliveryID(id, receipt string) (domain.DeliveryID, error) {
	if receipt != "" {
		exact, err := domain.ReceiptOf(receipt, id, s.user)
		if err == nil && exact.Time().After(s.g.cfg.Now().Add(request.MaxClockSkew)) {
			err = domain.ErrReceipt
		}
		return exact, err
	}
	return domain.NewDeliveryID(time.UnixMilli(0), domain.HashDelivery(id, s.user)), nil
}

// acknowledge finds the delivery of an id and moves it from the unacknowledged to the recent. What was
// sent may be acknowledged at any speed.
func (s *session) acknowledge(id, receipt string, reading bool) *delivery {
	if len(id) > domain.MaxIDBytes {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.unacked.only(id, receipt); d != nil {
		return s.acknowledged(d)
	}
	want, err := s.deliveryID(id, receipt)
	if err != nil {
		return nil
	}
	if d := s.unacked.get(want.Hash()); d != nil && (d.id == want || want.Timeless()) {
		return s.acknowledged(d)
	}
	if e := s.recent.find(want); e != nil {
		if !e.open {
			s.ids.charge(s.g.now(), priceID)
			return e.delivery(s, id, reading)
		}
		s.frames -= meter(s.priceFrame())
		d := e.delivery(s, id, reading)
		e.open = false
		return d
	}
	return nil
}

// acknowledged moves a delivery to the recent; under the lock.
func (s *session) acknowledged(d *delivery) *delivery {
	s.unacked.remove(d)
	s.recent.add(d)
	s.frames -= meter(s.priceFrame()) // the frame was one that we asked for
	return d
}

// reads tells what the person has seen. What the session does not know may have come over an earlier one. That is told
// as the client's word: of the delivery that the receipt names, or without a receipt of any delivery under the id. It can
// only be a delivery of this user, and counts only if it was handed out.
func (s *session) reads(f *clientFrame) *protocolError {
	var bad *protocolError
	for i, id := range f.IDs {
		if err := domain.CheckKnownID(id); err != nil {
			s.ids.charge(s.g.now(), priceID)
			bad = badFrame(codeBadIDs, "read: the id %q %s", cut(id), err)
			continue
		}
		which, err := s.deliveryID(id, f.receipt(i))
		if err != nil {
			s.ids.charge(s.g.now(), priceID)
			bad = badFrame(codeBadReceipts, "read: the receipt of %q %s", cut(id), err)
			continue
		}
		if d := s.acknowledge(id, f.receipt(i), true); d != nil {
			d.seen()
			continue
		}
		now := s.g.now()
		s.ids.charge(now, priceStranger)
		s.owe(now, s.g.strangers.charge(s.user, now, s.priceStrangerOfUser()))
		s.g.readElsewhere(s.user, id, which)
	}
	return bad
}

func (g *Gateway) readElsewhere(user, notification string, id domain.DeliveryID) {
	g.broker.Fact(&whisperv1.Event{
		DeliveryId:     id[:],
		NotificationId: notification,
		UserId:         user,
		AtUs:           g.stamp.next(),
		Kind:           &whisperv1.Event_DeliveryRead{DeliveryRead: &whisperv1.DeliveryRead{Node: g.cfg.Node}},
	}, nil, nil)
}

// peerClosed answers the client's close frame with its own code. If that is itself the answer to ours, there
// is nothing more to wait for.
func (s *session) peerClosed(code int) {
	s.mu.Lock()
	s.deafened = true
	if s.phase == parted && s.writer == idle {
		s.link.cut()
	}
	s.mu.Unlock()
	s.handBack()
	reply := code
	if code == closeNoStatus {
		reply = closeNormal
	}
	s.part(code, closeFrame(reply, ""), false)
}

// lastOf bounds a token's end, which also keeps nanoseconds within 64 bits.
func lastOf(expires, now time.Time) int64 {
	if latest := now.Add(longestSession); expires.After(latest) {
		expires = latest
	}
	return expires.UnixNano()
}

var errNotUpgrade = errors.New("this is a WebSocket: connect with the headers of an upgrade")
