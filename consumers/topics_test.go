package consumers_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// Everybody shares one partitioner and a few records, and must get what a producer of their own would choose.
func TestPartitionOfIsThatOfAProducerForEachCaller(t *testing.T) {
	t.Parallel()
	const partitions = 12
	var callers sync.WaitGroup
	for caller := range 8 {
		callers.Go(func() {
			own := kgo.StickyKeyPartitioner(nil).ForTopic("t")
			for i := range 2_000 {
				user := fmt.Sprintf("user-%d-%0*d", caller, i%40, i)
				if got, want := consumers.PartitionOf(user, partitions), own.Partition(&kgo.Record{Key: []byte(user)}, partitions); int(got) != want {
					t.Errorf("%q is on %d, not %d", user, got, want)
				}
			}
		})
	}
	callers.Wait()
}

func BenchmarkPartitionOf(b *testing.B) {
	b.ReportAllocs()
	for range b.N {
		consumers.PartitionOf("bench-1234", 12)
	}
}
