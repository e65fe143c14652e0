package projections

import (
	"cmp"
	"context"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// answerKey is a row of answer_shards but for its shard.
type answerKey struct {
	minute           int64 // Unix minutes
	channel, outcome string
}

// answerOf is the answer that a fact tells of, if it does. An acknowledgement alone is none: the sending was
// answered before.
func answerOf(f fact, a attempt) (answerKey, bool) {
	key := answerKey{minute: a.at / 60_000_000, channel: a.channel, outcome: a.outcome}
	if d, ok := f.ev.GetKind().(*whisperv1.Event_DeliveryDelivered); ok {
		key.outcome = "sent"
		return key, d.DeliveryDelivered.GetSentAtUs() > 0
	}
	return key, true
}

func compareAnswers(a, b answerKey) int {
	return cmp.Or(cmp.Compare(a.minute, b.minute), cmp.Compare(a.channel, b.channel), cmp.Compare(a.outcome, b.outcome))
}

func (t *transaction) writeAnswers(ctx context.Context) error {
	if len(t.answers) == 0 {
		return nil
	}
	cols := arrays(oidTimestamp, oidText, oidText, oidInt4, oidInt8)
	for _, key := range sorted(t.answers, compareAnswers) {
		f := cols.add()
		f[0].int8(key.minute*60_000_000 - pgEpochUS)
		f[1].text(key.channel)
		f[2].text(key.outcome)
		f[3].int4(t.stripe)
		f[4].int8(t.answers[key])
	}
	_, err := t.run(ctx, t.tx, `
		INSERT INTO $.answer_shards AS s (minute, channel, outcome, shard, count)
		SELECT * FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::int4[], $5::int8[])
		ON CONFLICT (minute, channel, outcome, shard) DO UPDATE SET count = s.count + EXCLUDED.count`, cols.params()...)
	return err
}
