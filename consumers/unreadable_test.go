package consumers_test

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// packed stands in for what a producer's compression makes of a batch.
type packed struct {
	codec kgo.CompressionCodecType
	bytes []byte
}

func (p packed) Compress(dst *bytes.Buffer, _ []byte, _ ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	dst.Reset()
	dst.Write(p.bytes)
	return dst.Bytes(), p.codec
}

// pack compresses contents that need not be records.
func pack(t *testing.T, codec kgo.CompressionCodecType, contents []byte) packed {
	t.Helper()
	c, err := kgo.DefaultCompressor(map[kgo.CompressionCodecType]kgo.CompressionCodec{
		kgo.CodecGzip: kgo.GzipCompression(), kgo.CodecLz4: kgo.Lz4Compression(), kgo.CodecZstd: kgo.ZstdCompression(), kgo.CodecSnappy: kgo.SnappyCompression(),
	}[codec])
	if err != nil {
		t.Fatal(err)
	}
	var dst bytes.Buffer
	out, used := c.Compress(&dst, contents)
	if used != codec {
		t.Fatalf("compressed with %v", used)
	}
	return packed{codec, bytes.Clone(out)}
}

// writePacked writes a batch of two records whose contents are p.
func writePacked(t *testing.T, c consumers.ClientConfig, topic string, p packed) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...), kgo.WithCompressor(p), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), filler(topic), filler(topic)).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// filler is large, since a producer sends what compression does not make smaller as it is.
func filler(topic string) *kgo.Record { return &kgo.Record{Topic: topic, Value: make([]byte, 450_000)} }

// letters are the dead letters that there are, without repetitions, as "topic/partition/first-last: error".
func letters(t *testing.T, c consumers.ClientConfig) []string {
	t.Helper()
	reader := runReader(t, c)
	var got []string
	caughtUp, err := reader.Follow(t.Context(), consumers.TopicDeadLetters, 0, consumers.FromStart, func(recs []*kgo.Record) {
		for _, rec := range recs {
			h := map[string]string{}
			for _, header := range rec.Headers {
				h[header.Key] = string(header.Value)
			}
			got = append(got, fmt.Sprintf("%s/%s/%s-%s: %s", h[consumers.HeaderTopic], h[consumers.HeaderPartition], h[consumers.HeaderOffset],
				h[consumers.HeaderLastOffset], h[consumers.HeaderError]))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the dead letters", caughtUp)
	reader.Unfollow(consumers.TopicDeadLetters, 0)
	return slices.Compact(got)
}

// TestLoopGoesOnBehindABatchThatCantBeRead, wherever it stands, and tells the dead letters which offsets it held.
func TestLoopGoesOnBehindABatchThatCantBeRead(t *testing.T) {
	t.Parallel()
	huge := make([]byte, 80<<20)
	for name, tt := range map[string]struct {
		batch packed
		why   string
	}{
		"gzip that expands":   {pack(t, kgo.CodecGzip, huge), "expands to more than 64 MiB"},
		"lz4 that expands":    {pack(t, kgo.CodecLz4, huge), "expands to more than 64 MiB"},
		"zstd that expands":   {pack(t, kgo.CodecZstd, huge), "expands to more than 64 MiB"},
		"snappy that expands": {packed{kgo.CodecSnappy, []byte{0x80, 0x80, 0x80, 0x80, 0x04, 0, 0}}, "expands to more than 64 MiB"}, // says 1 GiB
		"zstd that is none":   {packed{kgo.CodecZstd, []byte("not compressed at all")}, "decompress"},
		"gzip that is none":   {packed{kgo.CodecGzip, []byte("not compressed at all")}, "decompress"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := kafka(t, 1, "a", consumers.TopicDeadLetters)
			writePacked(t, client, "a", tt.batch) // 0 and 1
			plain(t, client, "a", "1", "2")
			writePacked(t, client, "a", tt.batch) // 4 and 5
			rec := newRecorder()
			start(t, consumers.LoopConfig{
				Client: client, Group: "whisper-g", Topics: []string{"a"}, Handler: rec,
				StallCheck: 50 * time.Millisecond,
			})
			adm := admin(t, client)
			eventually(t, "the commit is at the end", func() bool { return committedOf(t, adm, "whisper-g", "a") == 6 })
			if got := rec.values("a/0"); !slices.Equal(got, []string{"1", "2"}) {
				t.Errorf("handed out %q", got)
			}
			plain(t, client, "a", "3")
			eventually(t, "what comes later is handed out", func() bool { return slices.Contains(rec.values("a/0"), "3") })
			got := letters(t, client)
			if len(got) != 2 {
				t.Fatalf("dead letters: %q", got)
			}
			for i, at := range []string{"a/0/0-1: ", "a/0/4-5: "} {
				if !strings.HasPrefix(got[i], at) || !strings.Contains(got[i], tt.why) {
					t.Errorf("dead letter %q, want %s… %s", got[i], at, tt.why)
				}
			}
		})
	}
}

// TestLoopGoesOnBehindABatchWithoutItsRecords: the client library fetches it again and again without a word.
func TestLoopGoesOnBehindABatchWithoutItsRecords(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a", consumers.TopicDeadLetters)
	plain(t, client, "a", "1")
	writePacked(t, client, "a", pack(t, kgo.CodecZstd, []byte("\xffnot the records that the header speaks of")))
	rec := newRecorder()
	start(t, consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"a"}, Handler: rec, StallCheck: 50 * time.Millisecond})
	adm := admin(t, client)
	eventually(t, "the commit is at the end", func() bool { return committedOf(t, adm, "g", "a") == 3 })
	if got := letters(t, client); len(got) != 1 || !strings.HasPrefix(got[0], "a/0/1-2: ") ||
		!strings.Contains(got[0], "its contents are no records") {
		t.Errorf("dead letters: %q", got)
	}
}

// TestReaderGoesOnBehindABatchThatCantBeRead: a template that can't be read must not keep its readers from starting.
func TestReaderGoesOnBehindABatchThatCantBeRead(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a", consumers.TopicDeadLetters)
	bomb := pack(t, kgo.CodecZstd, make([]byte, 80<<20))
	writePacked(t, client, "a", bomb)
	plain(t, client, "a", "1")
	writePacked(t, client, "a", bomb)
	reader := runReader(t, client)
	var mu sync.Mutex
	var got []string
	caughtUp, err := reader.Follow(t.Context(), "a", 0, consumers.FromStart, func(recs []*kgo.Record) {
		mu.Lock()
		defer mu.Unlock()
		for _, rec := range recs {
			got = append(got, string(rec.Value))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "it caught up", caughtUp)
	plain(t, client, "a", "2")
	eventually(t, "what comes later is handed out", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Equal(got, []string{"1", "2"})
	})
	if got := letters(t, client); len(got) != 2 || !strings.HasPrefix(got[0], "a/0/0-1: ") || !strings.HasPrefix(got[1], "a/0/3-4: ") {
		t.Errorf("dead letters: %q", got)
	}
}

// TestBatchesThatExpandTogetherAreTakenInTurn: each is within the bound; all of one answer would be gigabytes.
func TestBatchesThatExpandTogetherAreTakenInTurn(t *testing.T) { //nolint:paralleltest // it measures memory
	client := kafka(t, 1, "a", consumers.TopicDeadLetters)
	const n, each = 5, 50 << 20
	cl, err := kgo.NewClient(kgo.SeedBrokers(client.Brokers...), kgo.ProducerBatchMaxBytes(90<<20),
		kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "a", Value: make([]byte, each)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	cl.Close()
	runtime.GC()
	counter := &sizes{}
	reader := runReader(t, client)
	caughtUp, err := reader.Follow(t.Context(), "a", 0, consumers.FromStart, counter.take)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "it caught up", caughtUp)
	reader.Unfollow("a", 0)
	if counter.records != n {
		t.Errorf("%d records, want %d", counter.records, n)
	}
	if counter.most > 200<<20 {
		t.Errorf("%d MiB came at once", counter.most>>20)
	}
	if got := letters(t, client); len(got) != 0 {
		t.Errorf("dead letters: %q", got)
	}
}

type sizes struct{ records, most int }

func (s *sizes) take(recs []*kgo.Record) {
	n := 0
	for _, rec := range recs {
		n += len(rec.Value)
	}
	s.records, s.most = s.records+len(recs), max(s.most, n)
}

// TestAPartitionThatCantMoveIsNotReady: without its dead letter a batch is not skipped, and that is told.
func TestAPartitionThatCantMoveIsNotReady(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a") // no topic for dead letters
	plain(t, client, "a", "1")
	writePacked(t, client, "a", packed{kgo.CodecZstd, []byte("not compressed at all")})
	rec := newRecorder()
	loop, err := consumers.NewLoop(consumers.LoopConfig{
		Client: client, Group: "g", Topics: []string{"a"}, Handler: rec,
		StallCheck: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	runLoop(t, loop)
	eventually(t, "the loop says that the partition does not move", func() bool {
		err := loop.Ready()
		return err != nil && strings.Contains(err.Error(), "a/0 does not move")
	})
	adm := admin(t, client)
	if got := committedOf(t, adm, "g", "a"); got > 1 {
		t.Errorf("committed %d without a dead letter", got)
	}
	if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, consumers.TopicDeadLetters); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes on once the dead letter can be written", func() bool { return committedOf(t, adm, "g", "a") == 3 })
	eventually(t, "it is ready again", func() bool { return loop.Ready() == nil })
}
