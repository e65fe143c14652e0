package consumers

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A broker bounds a batch as it is written, compressed (1 MiB by default); 35 KB of zstd can be a gigabyte.
const (
	// maxExpanded bounds a batch: 64 times what a broker's defaults let upstream write. Alerts compress to a tenth or
	// twentieth. A batch beyond it is skipped with a dead letter.
	maxExpanded = 64 << 20
	// maxExpandedFetch bounds the batches of one broker's answer together. The rest is fetched again.
	maxExpandedFetch = 2 * maxExpanded
)

// errLater says that an answer has expanded to as much as is held at a time. The client keeps what it has and fetches
// the rest again.
var errLater = errors.New("the fetch expands to more than is taken at a time")

// bounded expands a batch up to maxExpanded and no further. It is the client library's own decompressor, which the
// library bounds, but hands out only so.
var bounded = sync.OnceValue(func() kgo.Decompressor {
	cl, err := kgo.NewClient(kgo.MaxDecompressBatchBytes(maxExpanded)) // connects to nothing
	if err != nil {
		panic(err) // the option's value is a constant
	}
	defer cl.Close()
	return cl.OptValue(kgo.WithDecompressor).(kgo.Decompressor)
})

// expander is a client's decompressor.
type expander struct {
	left  atomic.Int64 // of maxExpandedFetch
	looks atomic.Int32 // fetches that are ours and not the consumer's
}

// OnBrokerRead implements kgo.HookBrokerRead: it is called before an answer is expanded. The answer to a look of ours
// may come while one to the consumer is being expanded, and must not give it more. If it is the other way round,
// the consumer's answer is fetched again.
func (e *expander) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	const fetch = 1
	if key == fetch && e.looks.Load() == 0 {
		e.left.Store(maxExpandedFetch)
	}
}

// looking marks a fetch of ours by a client until done is called.
func looking(cl *kgo.Client) (done func()) {
	e, ok := cl.OptValue(kgo.WithDecompressor).(*expander)
	if !ok {
		return func() {}
	}
	e.looks.Add(1)
	return func() { e.looks.Add(-1) }
}

// Decompress implements kgo.Decompressor.
func (e *expander) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec == kgo.CodecNone {
		return src, nil
	}
	if e.left.Load() <= 0 {
		return nil, errLater
	}
	out, err := bounded().Decompress(src, codec)
	if errors.Is(err, kgo.ErrMaxDecompress) {
		e.left.Add(-maxExpanded) // it may have expanded so far before it was given up
		return nil, err
	}
	e.left.Add(-int64(len(out)))
	return out, err
}
