package dispatch

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// headerMoved is on a change that takes an endpoint whose token is somebody else's now; see [decide.Moved].
const headerMoved = "moved"

// headerClaimant is on a user's claims and releases: the user's partition and the epoch of its owner, 4 and 8 bytes, big
// endian.
const headerClaimant = "claimant"

// putClaim writes to the partition of the token. What its owner says there (what stands, nobody's, a tombstone) carries the
// owner's epoch, as on every changelog. A user's claim is written by the owner of another partition as a rule, and says so.
func (p *partition) putClaim(o decide.PutClaim) {
	rec := &kgo.Record{
		Topic: consumers.TopicTokens, Partition: consumers.PartitionOf(string(o.Token[:]), p.role.cfg.Partitions),
		Key: o.Token[:],
	}
	if o.Own {
		rec.Headers = p.owner
	} else {
		by := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(p.id)), uint64(p.ownedAs))
		rec.Headers = []kgo.RecordHeader{{Key: headerClaimant, Value: by}}
	}
	if o.Claim == nil {
		p.publish(p.role.bulk, rec, nil)
		return
	}
	p.publish(p.role.bulk, rec, o.Claim)
}

// claimants tells the claims that count from those of an owner who had lost the user's partition: a later owner of it has
// written claims here before, and has claimed itself whatever counts.
type claimants map[int32]consumers.Epoch

func (c claimants) stale(rec *kgo.Record) bool {
	value, _ := consumers.Header(rec, headerClaimant)
	if len(value) != 4+8 {
		return false
	}
	from, epoch := int32(binary.BigEndian.Uint32(value)), consumers.Epoch(binary.BigEndian.Uint64(value[4:]))
	if epoch < c[from] {
		return true
	}
	c[from] = epoch
	return false
}

// claims hands claims to the state: up to the mark of the takeover directly, since the loop does not run yet; later ones
// by the mailbox.
func (p *partition) claims(t *takeover) func([]*kgo.Record) {
	log, from := t.logs[consumers.TopicTokens], claimants{}
	return func(recs []*kgo.Record) {
		var later []decide.Input
		for _, rec := range recs {
			stale, mark, taken := t.judge(log, rec)
			if mark {
				continue
			}
			in, err := claimSeen(rec)
			if err != nil {
				p.junk(rec, err)
				continue
			}
			if in.Stray = stale || from.stale(rec); in.Stray {
				strayRecords(rec.Topic).Inc()
			}
			if taken {
				later = append(later, in)
			} else {
				p.state.RestoreClaim(in, p.role.cfg.Now())
			}
		}
		if len(later) > 0 {
			p.mail.tell(later...)
		}
	}
}

func claimSeen(rec *kgo.Record) (in decide.ClaimArrived, err error) {
	if len(rec.Key) != len(in.Token) {
		return in, fmt.Errorf("the key of %d bytes is no hash of a token", len(rec.Key))
	}
	in.Token, in.At = decide.TokenHash(rec.Key), rec.Timestamp
	if rec.Value == nil {
		return in, nil
	}
	in.Claim = &whisperv1.TokenClaim{}
	if err := proto.Unmarshal(rec.Value, in.Claim); err != nil {
		return in, fmt.Errorf("not a whisper.v1.TokenClaim: %w", err)
	}
	if in.Claim.GetReleased() && in.Claim.GetUserId() == "" {
		return in, nil // nobody's
	}
	for what, id := range map[string]string{"user": in.Claim.GetUserId(), "endpoint": in.Claim.GetEndpoint()} {
		if err := domain.CheckKnownID(id); err != nil {
			return in, fmt.Errorf("the %s %w", what, err)
		}
	}
	return in, nil
}

// movedOf reads the header; nil: the change is one of upstream's.
func movedOf(rec *kgo.Record) (*decide.Moved, error) {
	value, ok := consumers.Header(rec, headerMoved)
	if !ok {
		return nil, nil
	}
	m, err := decide.ParseMoved(string(value))
	if err != nil {
		return nil, err
	}
	return &m, nil
}
