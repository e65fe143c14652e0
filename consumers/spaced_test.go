package consumers_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/klivvr/whisper/consumers"
)

// countFetches counts those that name partitions or are to wait for some; a client's last one does neither.
func countFetches(cluster *kfake.Cluster) *atomic.Int64 {
	n := &atomic.Int64{}
	cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		n.Add(1)
		return nil, nil, false
	})
	return n
}

// fetchesOf consumes n records that come one by one, each once the one before was handed over.
func fetchesOf(t *testing.T, n int, distance consumers.Distance) (fetches int64, took time.Duration) {
	t.Helper()
	cluster, client := fakeKafka(t, 1, "a")
	r := newRecorder()
	loop, err := consumers.NewLoop(consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"a"}, Handler: r, FetchDistance: distance})
	if err != nil {
		t.Fatal(err)
	}
	stop := runLoop(t, loop)
	p, err := consumers.NewPublisher(client, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	eventually(t, "ready", func() bool { return loop.Ready() == nil })
	counted := countFetches(cluster)
	began := time.Now()
	for i := range n {
		if err := p.PublishSync(t.Context(), &kgo.Record{Topic: "a", Value: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all records", func() bool { return r.count() == n })
	took, fetches = time.Since(began), counted.Load()
	stop()
	for i, value := range r.values("a/0") {
		if value != fmt.Sprint(i) {
			t.Fatalf("record %d is %s", i, value)
		}
	}
	return fetches, took
}

func TestFetchesKeepTheirDistance(t *testing.T) {
	t.Parallel()
	const n, apart = 2_000, 20 * time.Millisecond
	fetches, took := fetchesOf(t, n, func() time.Duration { return apart })
	if most := int64(took/apart) + 5; fetches > most {
		t.Errorf("%d fetches in %s, at most %d are %s apart", fetches, took, most, apart)
	}
}

func TestFetchesWithoutADistanceWaitForNothing(t *testing.T) {
	t.Parallel()
	const n = 300
	asked := atomic.Int64{}
	fetches, _ := fetchesOf(t, n, func() time.Duration { asked.Add(1); return 0 })
	if asked.Load() < fetches {
		t.Errorf("%d fetches asked %d times for the distance", fetches, asked.Load())
	}
}

func TestFetchesKeepTheirDistanceOverTLS(t *testing.T) {
	t.Parallel()
	certified := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	defer certified.Close()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "a"), kfake.TLS(certified.TLS.Clone()))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	roots := certified.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	client := consumers.ClientConfig{Brokers: cluster.ListenAddrs(), ClientID: t.Name(), TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	asked := atomic.Int64{}
	reader, err := consumers.NewSpacedReader(client, func() time.Duration { asked.Add(1); return time.Millisecond })
	if err != nil {
		t.Fatal(err)
	}
	run := make(chan error, 1)
	go func() { run <- reader.Run(t.Context()) }()
	publish(t, client, &kgo.Record{Topic: "a", Value: []byte("x")})
	got := make(chan string, 1)
	if _, err := reader.Follow(t.Context(), "a", 0, consumers.FromStart, func(records []*kgo.Record) { got <- string(records[0].Value) }); err != nil {
		t.Fatal(err)
	}
	if value := <-got; value != "x" || asked.Load() == 0 {
		t.Errorf("got %q, the distance was asked for %d times", value, asked.Load())
	}
	reader.Close()
	if err := <-run; err != nil {
		t.Error(err)
	}
}

// What a publisher is told by slow answers, its loop goes by as well.
func TestSlowAnswersWidenTheDistance(t *testing.T) {
	t.Parallel()
	cluster, client := fakeKafka(t, 3, "a")
	p, err := consumers.NewPublisher(client, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	slow, produced := atomic.Bool{}, atomic.Int64{}
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		produced.Add(1)
		if slow.Load() {
			cluster.SleepControl(func() { <-time.After(30 * time.Millisecond) })
		}
		return nil, nil, false
	})
	one := func(i int) {
		if err := p.PublishSync(t.Context(), &kgo.Record{Topic: "a", Partition: int32(i % 3), Value: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		one(i)
	}
	slow.Store(true)
	for i := range 20 {
		one(i)
	}
	if d := p.Distance(); d < 10*time.Millisecond {
		t.Fatalf("Kafka takes 30 ms more than it can, the distance is %s", d)
	}
	eventually(t, "no distance", func() bool { return p.Distance() == 0 }) // nobody asks for long
}
