package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/request"
)

// ListsConfig says what is measured of alerts beside requests that name many users.
type ListsConfig struct {
	Settings
	// Connected users, who get the alerts.
	Connected int
	// Lists are requests on the low lane, each of Users users, with Bytes of data that every delivery carries.
	Lists, Users, Bytes int
	// Quota, where set, is the producer_byte_rate that the broker grants each client id.
	Quota int
	// Alerts a second, for Quiet before the lists, and until all their deliveries are written.
	Alerts int
	Quiet  time.Duration
}

// Validate names every problem of the settings.
func (c ListsConfig) Validate() error {
	errs := []error{
		c.Settings.Validate(), atLeast(1, "connected", c.Connected), atLeast(1, "lists", c.Lists), atLeast(1, "users", c.Users),
		atLeast(0, "bytes", c.Bytes), atLeast(0, "quota", c.Quota), atLeast(1, "alerts", c.Alerts), atLeast(time.Second, "quiet", c.Quiet),
	}
	if c.Users > request.MaxUsers {
		errs = append(errs, fmt.Errorf("users: at most %d in a request, not %d", request.MaxUsers, c.Users))
	}
	if c.Bytes > domain.MaxDataBytes-64 {
		errs = append(errs, fmt.Errorf("bytes: at most %d, not %d", domain.MaxDataBytes-64, c.Bytes))
	}
	return errors.Join(errs...)
}

// ListsReport is what was measured: medians of the runs.
type ListsReport struct {
	Deliveries int    `json:"deliveries"`
	Kafka      string `json:"kafka"`
	WarmUp     WarmUp `json:"warm_up"`
	// Written is how many seconds intake took for all deliveries of the lists.
	Written float64 `json:"written_seconds"`
	// Handed is from when an alert was due until it was readable in whisper.deliveries.high, Socket until it arrived.
	HandedQuiet  Quantiles `json:"handed_quiet"`
	HandedBeside Quantiles `json:"handed_beside"`
	SocketQuiet  Quantiles `json:"socket_quiet"`
	SocketBeside Quantiles `json:"socket_beside"`
	// Ratios of the p99, run by run.
	HandedRatio float64 `json:"handed_ratio_p99"`
	SocketRatio float64 `json:"socket_ratio_p99"`
}

// RunLists measures alerts beside lists of users: one process a role.
func RunLists(ctx context.Context, cfg ListsConfig) (*ListsReport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &spine{Settings: cfg.Settings, connected: cfg.Connected}
	defer s.close()
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	adm, err := s.client.Admin()
	if err != nil {
		return nil, err
	}
	defer adm.Close()
	l := &lists{spine: s, cfg: cfg, adm: adm}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	if err := l.watch(watching); err != nil {
		return nil, err
	}
	warmed, err := s.warmUp(ctx, s.unicast(warmUpRate))
	if err != nil {
		return nil, err
	}
	s.say("warming up, with lists like those that are measured")
	if _, err := l.beside(ctx, "warm"); err != nil {
		return nil, err
	}
	if cfg.Quota > 0 {
		if err := l.quota(ctx); err != nil {
			return nil, err
		}
	}
	r, err := l.run(ctx)
	if err != nil {
		return nil, err
	}
	r.WarmUp, r.Kafka = warmed, s.kafkaName()
	return r, nil
}

type lists struct {
	*spine
	cfg ListsConfig
	adm *kadm.Client
}

// listsRun is what one measurement came to.
type listsRun struct {
	handed, socket Quantiles
	written        float64
}

func (l *lists) run(ctx context.Context) (*ListsReport, error) {
	var quiets, besides []listsRun
	for i := range l.Runs {
		quiet, err := l.alone(ctx)
		if err != nil {
			return nil, err
		}
		beside, err := l.beside(ctx, fmt.Sprint(i))
		if err != nil {
			return nil, err
		}
		l.say("  run %d: handed p50 %.1f p99 %.1f ms alone, p50 %.1f p99 %.1f beside; "+
			"socket p50 %.1f p99 %.1f alone, p50 %.1f p99 %.1f beside; lists written in %.1f s", i+1,
			quiet.handed.P50, quiet.handed.P99, beside.handed.P50, beside.handed.P99,
			quiet.socket.P50, quiet.socket.P99, beside.socket.P50, beside.socket.P99, beside.written)
		quiets, besides = append(quiets, quiet), append(besides, beside)
	}
	r := &ListsReport{Deliveries: l.cfg.Lists * l.cfg.Users}
	var handedQuiet, handedBeside, socketQuiet, socketBeside []Quantiles
	var handed, socket, written []float64
	for i, q := range quiets {
		b := besides[i]
		handedQuiet, handedBeside = append(handedQuiet, q.handed), append(handedBeside, b.handed)
		socketQuiet, socketBeside = append(socketQuiet, q.socket), append(socketBeside, b.socket)
		handed, socket, written = append(handed, b.handed.P99/q.handed.P99), append(socket, b.socket.P99/q.socket.P99), append(written, b.written)
	}
	r.HandedQuiet, r.HandedBeside = medians(handedQuiet), medians(handedBeside)
	r.SocketQuiet, r.SocketBeside = medians(socketQuiet), medians(socketBeside)
	r.HandedRatio, r.SocketRatio, r.Written = median(handed), median(socket), median(written)
	return r, nil
}

func (l *lists) alone(ctx context.Context) (listsRun, error) {
	lat, err := l.measure(ctx, l.cfg.Alerts, l.cfg.Quiet, nil)
	if err != nil {
		return listsRun{}, err
	}
	return listsRun{handed: lat.handed.quantiles(0), socket: lat.quantiles(0)}, nil
}

// beside sends the lists, and alerts until all deliveries of the lists are written.
func (l *lists) beside(ctx context.Context, name string) (listsRun, error) {
	before, err := l.written(ctx)
	if err != nil {
		return listsRun{}, err
	}
	begin := time.Now()
	if err := l.send(ctx, name); err != nil {
		return listsRun{}, err
	}
	during, over := make(chan result, 1), make(chan struct{})
	go func() {
		lat, err := l.measureUntil(ctx, l.cfg.Alerts, over)
		during <- result{lat, err}
	}()
	took, err := l.await(ctx, before+int64(l.cfg.Lists*l.cfg.Users), begin)
	close(over)
	r := <-during
	if err := errors.Join(err, r.err); err != nil {
		return listsRun{}, err
	}
	return listsRun{handed: r.lat.handed.quantiles(0), socket: r.lat.quantiles(0), written: took}, nil
}

func (l *lists) send(ctx context.Context, name string) error {
	users := make([]string, l.cfg.Users)
	for i := range users {
		users[i] = fmt.Sprintf("away-%d", i)
	}
	for i := range l.cfg.Lists {
		value, err := json.Marshal(map[string]any{
			"id": fmt.Sprintf("list-%s-%d", name, i), "to": map[string]any{"users": users}, "channels": []string{"socket"}, "ttl": "10m",
			"content": map[string]any{
				"title": "News", "body": "We open in Cairo.", "data": map[string]any{"text": strings.Repeat("x", l.cfg.Bytes)},
			},
		})
		if err != nil {
			return err
		}
		if err := l.load.ProduceSync(ctx, &kgo.Record{Topic: consumers.TopicRequests(domain.Low), Value: value}).FirstErr(); err != nil {
			return fmt.Errorf("send a list: %w", err)
		}
	}
	return nil
}

// written is how many records whisper.deliveries.low has had.
func (l *lists) written(ctx context.Context) (n int64, err error) {
	ends, err := l.adm.ListEndOffsets(ctx, consumers.TopicDeliveries(domain.Low))
	if err != nil {
		return 0, fmt.Errorf("find the ends of the deliveries: %w", err)
	}
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n, nil
}

func (l *lists) await(ctx context.Context, n int64, begin time.Time) (float64, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := l.written(ctx)
		switch {
		case err != nil:
			return 0, err
		case got >= n:
			return time.Since(begin).Seconds(), nil
		case time.Since(begin) > broadcastWait:
			return 0, fmt.Errorf("%d deliveries of the lists are still missing after %s", n-got, broadcastWait)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (l *lists) quota(ctx context.Context) error {
	l.say("the broker grants each client id %d bytes a second", l.cfg.Quota)
	_, err := l.adm.AlterClientQuotas(ctx, []kadm.AlterClientQuotaEntry{{
		Entity: kadm.ClientQuotaEntity{{Type: "client-id"}},
		Ops:    []kadm.AlterClientQuotaOp{{Key: "producer_byte_rate", Value: float64(l.cfg.Quota)}},
	}})
	if err != nil {
		return fmt.Errorf("set the quota: %w", err)
	}
	return nil
}

// watch notes when each alert can be read in whisper.deliveries.high.
func (l *lists) watch(ctx context.Context) error {
	reader, err := consumers.NewReader(l.client)
	if err != nil {
		return err
	}
	for p := range l.Partitions {
		_, err := reader.Follow(ctx, consumers.TopicDeliveries(domain.High), p, consumers.FromStart, func(records []*kgo.Record) {
			now := time.Now()
			for _, rec := range records {
				l.users.handed(notificationOf(rec.Value), now)
			}
		})
		if err != nil {
			reader.Close()
			return err
		}
	}
	go func() {
		defer reader.Close()
		if err := reader.Run(ctx); err != nil {
			l.say("reading the deliveries: %v", err)
		}
	}()
	return nil
}

// notificationOf is the notification's id, field 2 of an Event, without the rest.
func notificationOf(value []byte) string {
	for len(value) > 0 {
		num, typ, n := protowire.ConsumeTag(value)
		if n < 0 {
			return ""
		}
		value = value[n:]
		if num == 2 && typ == protowire.BytesType {
			id, _ := protowire.ConsumeString(value)
			return id
		}
		if n = protowire.ConsumeFieldValue(num, typ, value); n < 0 {
			return ""
		}
		value = value[n:]
	}
	return ""
}
