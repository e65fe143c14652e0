package consumers

import "github.com/twmb/franz-go/pkg/kgo"

// Header is the value of a record's header, and whether it has that header. Of one that is there twice the last one
// counts, as for most clients of Kafka: whoever adds a header has the last word.
func Header(rec *kgo.Record, key string) (value []byte, ok bool) {
	for i := len(rec.Headers) - 1; i >= 0; i-- {
		if h := &rec.Headers[i]; h.Key == key {
			return h.Value, true
		}
	}
	return nil, false
}
