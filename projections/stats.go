package projections

import (
	"math"
	"strconv"
	"time"

	"github.com/klivvr/whisper/domain"
)

// statKey is a row of delivery_stat_shards.
type statKey struct {
	minute    int64 // Unix minutes of the request
	lane      domain.Lane
	category  string
	channel   string
	status    domain.Status
	partition int32
}

// latencyBuckets reach from 1 ms to 1.5^46 ms = 35 hours by a factor of 1.5; the last holds the rest.
// The SQL function bucket_quantiles knows the same bounds.
const latencyBuckets = 48

// bucketBits is how far a count is shifted to make room for its bucket in the tables.
const bucketBits = 6

// stat is what one statKey's row changes by.
type stat struct {
	count     int64
	latencies *[latencyBuckets]int64
}

// bucket is the index of a latency: bucket i holds up to 1.5^i ms.
func bucket(latency time.Duration) int {
	ms := float64(latency) / float64(time.Millisecond)
	if ms <= 1 {
		return 0
	}
	return min(int(math.Ceil(math.Log(ms)/math.Log(1.5)-1e-9)), latencyBuckets-1)
}

// stats are changes of delivery_stat_shards.
type stats map[statKey]*stat

// add counts a row in (+1) or out (-1). A row counts where it stands now, so whatever order its facts
// came in, the sums are those of the final rows.
func (s stats) add(r *row, partition int32, by int64) {
	key := statKey{
		minute:    r.id.Time().Unix() / 60,
		lane:      domain.LaneOf(r.lane),
		category:  r.category,
		channel:   r.channel,
		status:    r.status,
		partition: partition,
	}
	st := s[key]
	if st == nil {
		st = &stat{}
		s[key] = st
	}
	st.count += by
	if at := r.reachedAt(); at > 0 {
		if st.latencies == nil {
			st.latencies = new([latencyBuckets]int64)
		}
		st.latencies[bucket(time.UnixMicro(at).Sub(r.id.Time()))] += by
	}
}

// idle says that nothing changes: a delivery left and another came to the same bucket.
func (s *stat) idle() bool {
	return s.count == 0 && (s.latencies == nil || *s.latencies == [latencyBuckets]int64{})
}

// appendBuckets appends the text of an array that has count<<bucketBits | bucket for each bucket that changes; nothing where none does.
func (s *stat) appendBuckets(b []byte) []byte {
	if s.latencies == nil || *s.latencies == [latencyBuckets]int64{} {
		return b
	}
	next := byte('{')
	for i, n := range s.latencies {
		if n != 0 {
			b = strconv.AppendInt(append(b, next), n<<bucketBits|int64(i), 10)
			next = ','
		}
	}
	return append(b, '}')
}
