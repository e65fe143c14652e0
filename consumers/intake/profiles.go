package intake

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/record"
	"github.com/klivvr/whisper/domain/request"
)

// profilesOf takes the patches of one partition of whisper.profiles.
func (r *Role) profilesOf(p *consumers.Partition) func(context.Context, *receipt) error {
	return func(ctx context.Context, rc *receipt) error {
		return r.takeProfile(ctx, rc, consumers.Source{Topic: p.TopicID(), Partition: p.ID, Offset: rc.rec.Offset})
	}
}

// takeProfile hands a profile patch on to the user's partition of whisper.changes with where it came from: a patch that
// is handed on twice, by an intake that was stopped meanwhile perhaps, must not undo what came after it. What is not
// right in a patch is left out and becomes a dead letter, the rest is taken (see [profile.SplitProfilePatch]). An empty
// value forgets the user.
func (r *Role) takeProfile(ctx context.Context, rc *receipt, source consumers.Source) error {
	user := string(rc.rec.Key)
	outcome := r.metrics.patched
	err := checkKey("user", user, domain.CheckID)
	var split profile.SplitPatch
	if len(rc.rec.Value) == 0 {
		outcome = r.metrics.forgotten
		err = checkKey("user", user, domain.CheckKnownID)
	} else if err == nil {
		split, err = profile.SplitProfilePatch(rc.rec.Value)
	}
	if err != nil {
		rc.settled = r.metrics.profilesRefused.Inc
		rc.refuse(ctx, err)
		return nil
	}
	rec := &kgo.Record{
		Topic:     consumers.TopicChanges,
		Partition: consumers.PartitionOf(user, r.cfg.Partitions),
		Key:       rc.rec.Key,
		Value:     split.Taken,
		Headers:   append(trace(rc.rec), source.Header()),
		Timestamp: changeTime(rc.rec.Timestamp, r.cfg.Now()),
	}
	if split.Refused != nil {
		outcome = r.metrics.patchedPartly
		rc.left.Add(1) // the dead letter
	}
	rc.settled = outcome.Inc
	rc.write(ctx, 1, func(int) *kgo.Record { return rec })
	if split.Refused != nil && !ended(ctx) {
		rc.refusePart(ctx, split.Refused, split.Fields, split.Problem)
	}
	return nil
}

// changeTime is when the patch was made, which says how old a push token is. A time that can't be, or
// that retention would take for a reason to delete the record at once, becomes now.
func changeTime(made, now time.Time) time.Time {
	if age := now.Sub(made); age > 24*time.Hour || age < -request.MaxClockSkew {
		return now
	}
	return made
}

// checkKey: of profiles the key is the user id, of templates the template id.
func checkKey(what, key string, check func(string) error) error {
	if err := check(key); err != nil {
		return &record.Invalid{Word: record.WordID, Problems: []string{"the key, which names the " + what + ", " + err.Error()}}
	}
	return nil
}
