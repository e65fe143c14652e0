package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// read is the session's reader: it handles what the client sends until the socket ends, and frees the
// session.
func (s *session) read() {
	defer s.readEnded()
	s.conn.SetPongHandler(func(string) error { s.alive(); return nil })
	s.conn.SetPingHandler(func(payload string) error {
		s.alive()
		s.control(encodeFrame(opPong, []byte(payload)))
		return nil
	})
	s.conn.SetCloseHandler(s.peerClosed)
	for {
		kind, r, err := s.conn.NextReader()
		if err != nil {
			s.readFailed(err)
			return
		}
		s.alive()
		if !s.frame(kind, r) {
			s.discard()
			return
		}
	}
}

func (s *session) alive() { s.heard.Store(s.g.cfg.Now().UnixNano()) }

// frame handles one data frame; false: the session is closing and nothing more is to be read.
func (s *session) frame(kind int, r io.Reader) bool {
	if s.deaf() {
		return false
	}
	if kind != websocket.TextMessage {
		return s.answer(&frameError{codeBinary, "frames are JSON text, this one is binary", true})
	}
	buf := readBuffers.Get().(*[]byte)
	defer putReadBuffer(buf)
	var err error
	*buf, err = readFrame(r, (*buf)[:0], s.g.cfg.MaxFrame)
	if err != nil {
		if errors.Is(err, errTooBig) {
			return s.answer(&frameError{codeTooBig, fmt.Sprintf("a frame has at most %d bytes", s.g.cfg.MaxFrame), true})
		}
		s.readFailed(err)
		return false
	}
	f, bad := decodeFrame(*buf)
	if bad == nil {
		bad = s.handle(f)
	}
	return s.answer(bad)
}

// answer sends the error frame, if there is one; false: the session was closed for it.
func (s *session) answer(bad *frameError) bool {
	if bad == nil {
		return true
	}
	s.g.metrics.badFrames.Inc()
	s.control(bad.wire())
	if bad.fatal {
		s.close(closeBadFrame, "bad frame: "+bad.text, false)
	}
	return !bad.fatal
}

func (s *session) handle(f clientFrame) *frameError {
	switch f.Type {
	case "refresh":
		s.g.metrics.refreshes.Inc()
		return s.refresh(f.Token)
	case "read":
		s.g.metrics.reads.Inc()
		return s.reads(f.IDs)
	default:
		s.g.metrics.acks.Inc()
		return s.acks(f.IDs)
	}
}

// acks settles those that this session was sent and names one of those that it was not.
func (s *session) acks(ids []string) *frameError {
	var unknown string
	strangers := 0
	for _, id := range ids {
		if d := s.acknowledge(id); d != nil {
			d.acked()
		} else {
			unknown = id
			strangers++
		}
	}
	if strangers == 0 {
		return nil
	}
	return &frameError{codeUnknownID, fmt.Sprintf("ack: %d of %d ids were never sent to this session, like %q", strangers, len(ids), cut(unknown)), false}
}

// acknowledge finds the delivery of an id and moves it from the unacknowledged to the recent.
func (s *session) acknowledge(id string) *delivery {
	if len(id) > domain.MaxIDBytes {
		return nil
	}
	hash := domain.HashDelivery(id, s.user)
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.unacked[hash]; d != nil {
		delete(s.unacked, hash)
		s.recent.add(d)
		return d
	}
	return s.recent.find(hash)
}

// reads tells what the person has seen. An id that the session does not know may have come over an
// earlier one, so it is told with a delivery id without a time. It can only be a delivery of this user.
func (s *session) reads(ids []string) *frameError {
	var bad *frameError
	for _, id := range ids {
		if err := domain.CheckID(id); err != nil {
			bad = &frameError{codeBadIDs, fmt.Sprintf("read: the id %q %s", cut(id), err), false}
			continue
		}
		if d := s.acknowledge(id); d != nil {
			d.seen()
			continue
		}
		s.g.readElsewhere(s.user, id)
	}
	return bad
}

func (g *Gateway) readElsewhere(user, notification string) {
	id := domain.NewDeliveryID(time.UnixMilli(0), domain.HashDelivery(notification, user))
	g.broker.Fact(&whisperv1.Event{
		DeliveryId:     id[:],
		NotificationId: notification,
		UserId:         user,
		AtUs:           g.stamp.next(),
		Kind:           &whisperv1.Event_DeliveryRead{DeliveryRead: &whisperv1.DeliveryRead{Node: g.cfg.Node}},
	}, nil, nil)
}

// deaf: who was refused or sent a bad frame is not listened to any more. In every other close the
// acknowledgements that were on their way still count.
func (s *session) deaf() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing && (s.user == "" || s.code == closeBadFrame)
}

// peerClosed answers the client's close frame with its own code.
func (s *session) peerClosed(code int, _ string) error {
	reply := code
	if code == websocket.CloseNoStatusReceived {
		reply = websocket.CloseNormalClosure
	}
	s.part(code, closeFrame(reply, ""), false)
	return nil
}

// readFailed tells a breach of the protocol, which the reader's library has already answered, from a
// connection that ended.
func (s *session) readFailed(err error) {
	var ended *websocket.CloseError
	var network net.Error
	if errors.As(err, &ended) || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		s.part(closeGone, nil, false)
		return
	}
	s.part(closeProtocol, nil, false)
	s.hangUp()
	s.discard()
}

// discard reads on without looking, so that the peer gets the close frame: closing a socket with
// unread bytes would reset it. The writer sets the deadline once the close frame is out.
func (s *session) discard() {
	_, _ = io.Copy(io.Discard, s.net)
}

// readEnded closes the socket, or leaves that to the writer if it is still at work on the last words.
func (s *session) readEnded() {
	s.part(closeGone, nil, false)
	s.mu.Lock()
	s.readDone = true
	writing := s.writing
	if writing {
		_ = s.net.SetWriteDeadline(time.Now().Add(closeLinger))
	}
	s.mu.Unlock()
	if !writing {
		_ = s.net.Close()
	}
	s.g.release()
}

var errTooBig = errors.New("the frame is too big")

// readBuffers hold a frame while it is read and handled; nothing is held between frames.
var readBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

func putReadBuffer(buf *[]byte) {
	if cap(*buf) <= 4096 {
		readBuffers.Put(buf)
	}
}

// readFrame reads all of r, growing with what came, so that a client that trickles a large frame
// holds no more memory than it sent.
func readFrame(r io.Reader, buf []byte, limit int) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case len(buf) > limit:
			return buf, errTooBig
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return buf, err
		}
	}
}
