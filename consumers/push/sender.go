package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// sender makes one lane's attempts.
type sender struct {
	provider    Provider
	facts       Facts
	deadLetters DeadLetters
	lane        domain.Lane
	slots       chan struct{} // one for each attempt without a fact, over all partitions
	log         *slog.Logger
	now         func() time.Time
	m           *instruments
}

func newSender(cfg Config, lane domain.Lane) *sender {
	return &sender{
		provider: cfg.Provider, facts: cfg.Facts, deadLetters: cfg.DeadLetters, lane: lane,
		slots: make(chan struct{}, cfg.MaxInFlight),
		log:   cfg.Logger.With("channel", cfg.Provider.Channel(), "lane", lane.String()),
		now:   cfg.Now, m: newInstruments(cfg.Metrics, cfg.Provider, lane),
	}
}

// Open implements consumers.Handler.
func (s *sender) Open(_ context.Context, p *consumers.Partition) (consumers.Feed, error) {
	// Attempts outlive Handle: they end with Close, not with the records' context.
	ctx, cancel := context.WithCancelCause(context.Background())
	return &feed{sender: s, part: p, mark: consumers.NewWatermark(p), ctx: ctx, cancel: cancel}, nil
}

// feed is one partition of the lane.
type feed struct {
	*sender
	part     *consumers.Partition
	mark     *consumers.Watermark
	ctx      context.Context
	cancel   context.CancelCauseFunc
	sends    sync.WaitGroup // attempts whose fact is not yet handed to the publisher
	attempts sync.WaitGroup // attempts whose fact Kafka does not have yet
}

// Handle starts an attempt for each record. It blocks while the lane has MaxInFlight attempts in flight.
func (f *feed) Handle(ctx context.Context, records []*kgo.Record) error {
	for _, rec := range records {
		select {
		case f.slots <- struct{}{}:
		case <-ctx.Done():
			return nil // Kafka hands out the rest again
		}
		if !f.part.Await(ctx) {
			<-f.slots
			return nil
		}
		f.mark.Take(rec.Offset)
		f.attempts.Add(1)
		f.m.inFlight.Inc()
		f.sends.Go(func() { f.attempt(rec) })
	}
	return nil
}

var errHandedOver = errors.New("the partition was handed over")

// Close waits for the attempts in flight. Attempts that ctx cuts off are not committed. After Close nothing is sent or
// published.
func (f *feed) Close(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		f.attempts.Wait()
		close(done)
	}()
	select {
	case <-done:
		f.cancel(nil)
		return nil
	case <-ctx.Done():
		f.cancel(errHandedOver)
		f.sends.Wait() // Send returns at once now
		return fmt.Errorf("attempts were still in flight: %w", ctx.Err())
	}
}

// attempt makes one attempt, and settles its record once Kafka has the fact.
func (f *feed) attempt(rec *kgo.Record) {
	var p *whisperv1.Push
	err := consumers.Contain(func() (err error) { p, err = decode(rec, f.lane); return err })
	if err != nil {
		f.log.Warn("push record can't be used", "partition", rec.Partition, "offset", rec.Offset, "error", err)
		f.deadLetters.Put(f.ctx, rec, err, f.settled(rec, 1))
		return
	}
	start := f.now()
	r, bug := Result{}, error(nil)
	if bug = consumers.Contain(func() error { r = f.try(p, start); return nil }); bug != nil {
		// It may have been sent, and a retry would meet the bug again, so this endpoint is given up for the delivery.
		r = Result{Class: whisperv1.FailureClass_FAILURE_CLASS_DROP, Reason: "panic", Bug: true}
		f.log.Error("a push met a bug, it goes to the dead letters", "partition", rec.Partition, "offset", rec.Offset, "error", bug)
	}
	if f.ctx.Err() != nil {
		f.release() // the result is unknown: the partition's new owner makes the attempt again
		return
	}
	end := f.now()
	f.observe(f.ctx, p, r, end, end.Sub(start))
	if !r.Bug {
		f.facts.Publish(f.ctx, f.fact(rec, p, r, end, end.Sub(start)), consumers.TraceHeaders(rec), f.settled(rec, 1))
		return
	}
	settled := f.settled(rec, 2)
	reason := &consumers.Reason{
		Word: "refused",
		Err:  fmt.Errorf("%s refused the request as malformed: %d %s", f.provider.Name(), r.Status, r.Reason),
	}
	if bug != nil {
		reason = &consumers.Reason{Word: "panic", Err: bug}
	}
	f.deadLetters.Put(f.ctx, rec, reason, settled)
	f.facts.Publish(f.ctx, f.fact(rec, p, r, end, end.Sub(start)), consumers.TraceHeaders(rec), settled)
}

// try lets the provider make the attempt, unless it has expired.
func (f *feed) try(p *whisperv1.Push, now time.Time) Result {
	if expired := Expired(p, now); expired != nil {
		return *expired
	}
	if p.GetRetract() {
		return Retract(f.ctx, f.provider, p)
	}
	return f.provider.Send(f.ctx, p)
}

// settled is called for each write of a record; the last one that succeeds settles it. A failed write leaves the offset
// where it is and stops the partition.
func (f *feed) settled(rec *kgo.Record, writes int) func(error) {
	var mu sync.Mutex
	ok := true
	return func(err error) {
		mu.Lock()
		defer mu.Unlock()
		writes--
		ok = ok && err == nil
		if err != nil && f.ctx.Err() == nil {
			f.part.Fail(err)
		}
		if writes > 0 {
			return
		}
		if ok {
			f.mark.Done(rec.Offset)
		}
		f.release()
	}
}

func (f *feed) release() {
	f.m.inFlight.Dec()
	<-f.slots
	f.attempts.Done()
}

// decode reads a record. The lane is that of the topic.
func decode(rec *kgo.Record, lane domain.Lane) (*whisperv1.Push, error) {
	p := &whisperv1.Push{}
	if err := proto.Unmarshal(rec.Value, p); err != nil {
		return nil, &consumers.Reason{Word: "undecodable", Err: fmt.Errorf("not a whisper.v1.Push: %w", err)}
	}
	var errs []error
	if _, err := domain.DeliveryIDFromBytes(p.GetDeliveryId()); err != nil {
		errs = append(errs, err)
	}
	if err := domain.CheckKnownID(p.GetUserId()); err != nil {
		errs = append(errs, fmt.Errorf("user_id %w", err))
	}
	if err := domain.CheckKnownID(p.GetNotificationId()); err != nil {
		errs = append(errs, fmt.Errorf("notification_id %w", err))
	}
	if p.GetAttempt() < 1 {
		errs = append(errs, fmt.Errorf("attempt is %d, they are numbered from 1", p.GetAttempt()))
	}
	if len(errs) > 0 {
		return nil, &consumers.Reason{Word: "invalid", Err: errors.Join(errs...)}
	}
	p.Lane = lane.Proto()
	return p, nil
}

// fact is the one fact about an attempt.
func (s *sender) fact(rec *kgo.Record, p *whisperv1.Push, r Result, at time.Time, took time.Duration) *whisperv1.Event {
	ev := &whisperv1.Event{
		DeliveryId: p.GetDeliveryId(), NotificationId: p.GetNotificationId(), UserId: p.GetUserId(),
		AtUs: at.UnixMicro(), Lane: p.GetLane(), Cause: consumers.PositionOf(rec),
	}
	if r.Sent() && p.GetRetract() {
		ev.Kind = &whisperv1.Event_DeliveryRetracted{DeliveryRetracted: &whisperv1.DeliveryRetracted{
			Channel: s.provider.Channel(), Provider: s.provider.Name(),
			Endpoint: p.GetEndpoint(), ProviderId: r.ProviderID, LatencyUs: took.Microseconds(),
		}}
		return ev
	}
	if r.Sent() {
		ev.Kind = &whisperv1.Event_DeliverySent{DeliverySent: &whisperv1.DeliverySent{
			Attempt: p.GetAttempt(), Channel: s.provider.Channel(), Provider: s.provider.Name(),
			Endpoint: p.GetEndpoint(), ProviderId: r.ProviderID, LatencyUs: took.Microseconds(), DueMs: p.GetDueMs(),
		}}
		return ev
	}
	failed := &whisperv1.AttemptFailed{
		Attempt: p.GetAttempt(), Channel: s.provider.Channel(), Provider: s.provider.Name(),
		Endpoint: p.GetEndpoint(), Class: r.Class, Reason: r.Reason, Status: int32(r.Status),
		RetryAfterMs: r.RetryAfter.Milliseconds(), LatencyUs: took.Microseconds(),
	}
	switch {
	case !r.InvalidSince.IsZero():
		failed.InvalidSinceMs = r.InvalidSince.UnixMilli()
	case r.Class == whisperv1.FailureClass_FAILURE_CLASS_PRUNE:
		failed.InvalidSinceMs = rec.Timestamp.UnixMilli()
	}
	if p.GetRetract() {
		ev.Kind = &whisperv1.Event_RetractFailed{RetractFailed: failed}
	} else {
		ev.Kind = &whisperv1.Event_AttemptFailed{AttemptFailed: failed}
	}
	return ev
}
