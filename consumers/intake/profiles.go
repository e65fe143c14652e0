package intake

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/requests"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/record"
	"github.com/klivvr/whisper/domain/request"
)

// profilesOf takes the patches of one partition of whisper.profiles.
func (r *Role) profilesOf(p *consumers.Partition) func(context.Context, *requests.Receipt) error {
	return func(ctx context.Context, rc *requests.Receipt) error {
		return r.takeProfile(ctx, rc, consumers.Source{Topic: p.TopicID(), Partition: p.ID, Offset: rc.Record.Offset})
	}
}

// takeProfile hands a profile patch on to the user's partition of whisper.changes with where it came from: a patch that
// is handed on twice, by an intake that was stopped meanwhile perhaps, must not undo what came after it. What is not
// right in a patch is left out and becomes a dead letter, the rest is taken (see [profile.SplitProfilePatch]). An empty
// value forgets the user.
func (r *Role) takeProfile(ctx context.Context, rc *requests.Receipt, source consumers.Source) error {
	user := string(rc.Record.Key)
	outcome := r.metrics.patched
	err := checkKey("user", user, domain.CheckID)
	var split profile.SplitPatch
	if len(rc.Record.Value) == 0 {
		outcome = r.metrics.forgotten
		err = checkKey("user", user, domain.CheckKnownID)
	} else if err == nil {
		split, err = profile.SplitProfilePatch(rc.Record.Value)
	}
	if err != nil {
		rc.Settled = r.metrics.profilesRefused.Inc
		rc.Refuse(ctx, err)
		return nil
	}
	rec := &kgo.Record{
		Topic:     consumers.TopicChanges,
		Partition: consumers.PartitionOf(user, r.cfg.Partitions),
		Key:       rc.Record.Key,
		Value:     split.Taken,
		Headers:   append(requests.Trace(rc.Record), source.Header()),
		Timestamp: changeTime(rc.Record.Timestamp, r.cfg.Now()),
	}
	if split.Refused != nil {
		outcome = r.metrics.patchedPartly
		rc.More(1) // the dead letter
	}
	rc.Settled = outcome.Inc
	rc.Write(ctx, 1, func(int) *kgo.Record { return rec })
	if split.Refused != nil && !ended(ctx) {
		rc.RefusePart(ctx, split.Refused, split.Fields, split.Problem)
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
