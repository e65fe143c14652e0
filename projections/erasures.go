package projections

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// An erased user's deliveries stay, countable, under an alias: the user id is put out of every row, and what
// upstream or a provider named after the user (endpoints, collapse keys, provider ids) out of attempts and
// timeline. The rule is a function of the log alone, so a rebuild gives the same rows: a delivery goes
// under the alias of the user's first erasure that is not before it. So facts about it that are read later,
// or from another topic, are given the alias before anything else is done with them.

// An alias is one erasure as facts are judged by it.
type alias struct {
	name string
	at   int64 // Unix microseconds: what was accepted until then
}

// aliasOf is made of where the erasure was asked for, so that one that dispatch told twice has one alias.
func aliasOf(f fact) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "erasure/%d/%d", f.rec.Partition, f.ev.GetUserErased().GetChangesOffset()))
	return "erased:" + hex.EncodeToString(sum[:8])
}

func userHash(user string) []byte {
	sum := sha256.Sum256([]byte(user))
	return sum[:16]
}

// An erasureKey is what a guess lacks that would confirm whom a hash is of. It stands in Postgres, where analysts may
// not read it: a setting would have to be the same for all projectors and every rebuild, and when it was lost, erasures
// from before the log begins would be undone.
type erasureKey struct {
	key []byte
	// fresh: projectors of the version before may still look for hashes without the key.
	fresh bool
}

// keyed is made of the hash, not of the user id, so that those that were written without the key can be given it.
func (k erasureKey) keyed(user string) []byte {
	sum := sha256.Sum256(append(slices.Clone(k.key), userHash(user)...))
	return sum[:16]
}

func (t *transaction) erasureKey(ctx context.Context) (k erasureKey, err error) {
	err = t.tx.QueryRow(ctx, t.sql("SELECT key, made_at > now() - interval '1 hour' FROM $.erasure_keys")).Scan(&k.key, &k.fresh)
	if err != nil {
		return k, fmt.Errorf("read the key of erasures: %w", err)
	}
	return k, nil
}

// keyErasures gives the key to hashes that have none, once the projectors of the version before are gone.
const keyErasures = `UPDATE $.erasures AS e SET user_hash = substr(sha256(k.key || e.user_hash), 1, 16), keyed = true
	FROM $.erasure_keys AS k WHERE NOT e.keyed AND k.made_at <= now() - interval '1 hour'`

// forget takes the erasures among the chunks' facts and gives every fact of an erased user its alias.
func (t *transaction) forget(ctx context.Context, chunks []*chunk) error {
	oldest := int64(math.MaxInt64)
	for _, c := range chunks {
		for _, f := range c.facts {
			if f.ev.GetUserErased() != nil {
				if err := t.eraseUser(ctx, f); err != nil {
					return err
				}
				continue
			}
			oldest = min(oldest, f.since())
		}
	}
	var any bool
	err := t.tx.QueryRow(ctx, t.sql("SELECT EXISTS (SELECT FROM $.erasures WHERE at >= to_timestamp($1::float8 / 1000000))"),
		oldest).Scan(&any)
	if err != nil || !any {
		return err
	}
	aliases, err := t.aliases(ctx, chunks)
	if err != nil {
		return err
	}
	for _, c := range chunks {
		for _, f := range c.facts {
			if f.ev.GetUserErased() != nil {
				continue
			}
			for _, a := range aliases[f.ev.GetUserId()] {
				if f.since() <= a.at {
					if err := pseudonymise(f, a.name); err != nil {
						return err
					}
					break
				}
			}
		}
	}
	return nil
}

// since is when the fact's delivery began: its request's time, or the fact's own where that is not known. A dropped
// duplicate belongs to the request that was dropped, not to the first one, whose id it names.
func (f fact) since() int64 {
	dropped := f.ev.GetDuplicateDropped()
	if ms := dropped.GetRequestedAtMs(); ms > 0 {
		return ms * 1000
	}
	if f.timeless() || dropped != nil {
		return f.ev.GetAtUs()
	}
	return f.id.Time().UnixMicro()
}

// aliases are those of the chunks' users who were erased, in the order of the log.
func (t *transaction) aliases(ctx context.Context, chunks []*chunk) (map[string][]alias, error) {
	key, err := t.erasureKey(ctx)
	if err != nil {
		return nil, err
	}
	users := map[string]string{} // by hash
	seen := map[string]bool{}
	cols := arrays(oidBytea)
	for _, c := range chunks {
		for _, f := range c.facts {
			user := f.ev.GetUserId()
			if seen[user] {
				continue
			}
			seen[user] = true
			for _, hash := range [][]byte{userHash(user), key.keyed(user)} {
				users[string(hash)] = user
				cols.add()[0].raw(hash)
			}
		}
	}
	res, err := t.run(ctx, t.tx, `
		SELECT user_hash, alias, at FROM $.erasures WHERE user_hash = ANY ($1::bytea[]) ORDER BY partition, "offset"`, cols.params()...)
	if err != nil {
		return nil, err
	}
	found := map[string][]alias{}
	for _, v := range res.Rows {
		user := users[string(v[0])]
		found[user] = append(found[user], alias{name: string(v[1]), at: readTime(v[2])})
	}
	t.known = found
	return found, nil
}

// eraseUser puts the user out of the rows that are there. Deliveries keep their ids, which are hashes.
func (t *transaction) eraseUser(ctx context.Context, f fact) error {
	name := aliasOf(f)
	user, at := f.ev.GetUserId(), f.ev.GetAtUs()
	key, err := t.erasureKey(ctx)
	if err != nil {
		return err
	}
	hash := key.keyed(user)
	if key.fresh {
		hash = userHash(user)
	}
	inserted, err := t.tx.Exec(ctx, t.sql(`
		INSERT INTO $.erasures (partition, "offset", user_hash, alias, at, keyed)
		VALUES ($1, $2, $3, $4, to_timestamp($5::float8 / 1000000), $6) ON CONFLICT DO NOTHING`),
		f.rec.Partition, f.ev.GetUserErased().GetChangesOffset(), hash, name, at, !key.fresh)
	if err != nil || inserted.RowsAffected() == 0 { // told again after a restart: who came since under this id stays
		return err
	}
	if _, err := t.tx.Exec(ctx, t.sql(`
		WITH gone AS MATERIALIZED (
			UPDATE $.deliveries SET user_id = $2::text WHERE user_id = $1 AND accepted_at <= to_timestamp($3::float8 / 1000000)
			RETURNING delivery_id, day
		), named AS (
			UPDATE $.attempts AS a SET target = 'erased:' || left(md5($2 || '/' || a.target), 8) FROM gone
			WHERE a.delivery_id = gone.delivery_id AND a.day = gone.day AND a.channel <> 'socket' AND a.target <> ''
		)
		UPDATE $.timeline AS l SET detail = (l.detail - 'collapse_key' - 'provider_id')
			|| CASE WHEN l.detail ? 'endpoint'
				THEN jsonb_build_object('endpoint', 'erased:' || left(md5($2 || '/' || (l.detail ->> 'endpoint')), 8)) ELSE '{}'::jsonb END
		FROM gone WHERE l.delivery_id = gone.delivery_id AND l.day = gone.day`), user, name, at); err != nil {
		return err
	}
	if _, err := t.tx.Exec(ctx, t.sql(`
		UPDATE $.duplicates SET user_id = $2
		WHERE user_id = $1 AND coalesce(requested_at, at) <= to_timestamp($3::float8 / 1000000)`), user, name, at); err != nil {
		return err
	}
	return t.eraseEarly(ctx, user, name, at)
}

// eraseEarly does the same to facts that wait for their delivery, whose value is the event itself.
func (t *transaction) eraseEarly(ctx context.Context, user, name string, at int64) error {
	rows, err := t.tx.Query(ctx, t.sql(`
		SELECT topic, partition, "offset", event FROM $.early_facts WHERE user_id = $1 AND at <= to_timestamp($2::float8 / 1000000)`), user, at)
	if err != nil {
		return err
	}
	type early struct {
		Topic     string
		Partition int32
		Offset    int64
		Event     []byte
	}
	var all []early
	for rows.Next() {
		var e early
		if err := rows.Scan(&e.Topic, &e.Partition, &e.Offset, &e.Event); err != nil {
			rows.Close()
			return err
		}
		all = append(all, e)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, e := range all {
		ev := new(whisperv1.Event)
		if err := proto.Unmarshal(e.Event, ev); err != nil {
			return fmt.Errorf("an early fact does not decode any more: %w", err)
		}
		scrub(ev, name)
		value, err := proto.Marshal(ev)
		if err != nil {
			return fmt.Errorf("encode an early fact: %w", err)
		}
		if _, err := t.tx.Exec(ctx, t.sql(`UPDATE $.early_facts SET user_id = $4, event = $5 WHERE topic = $1 AND partition = $2 AND "offset" = $3`),
			e.Topic, e.Partition, e.Offset, name, value); err != nil {
			return err
		}
	}
	return nil
}

// pseudonymise puts the user out of a fact.
func pseudonymise(f fact, name string) error {
	scrub(f.ev, name)
	if !f.timeless() {
		return nil
	}
	value, err := proto.Marshal(f.ev) // it may have to wait in early_facts
	if err != nil {
		return fmt.Errorf("encode a fact of an erased user: %w", err)
	}
	f.rec.Value = value
	return nil
}

func scrub(ev *whisperv1.Event, name string) {
	ev.UserId = name
	switch k := ev.GetKind().(type) {
	case *whisperv1.Event_DeliveryAccepted:
		acc := k.DeliveryAccepted
		acc.Content, acc.Variables, acc.CollapseKey = nil, nil, ""
	case *whisperv1.Event_DeliverySent:
		k.DeliverySent.ProviderId = ""
		k.DeliverySent.Endpoint = erasedName(k.DeliverySent.GetEndpoint(), name)
	case *whisperv1.Event_AttemptFailed:
		k.AttemptFailed.Endpoint = erasedName(k.AttemptFailed.GetEndpoint(), name)
	case *whisperv1.Event_EndpointPruned:
		k.EndpointPruned.Endpoint = erasedName(k.EndpointPruned.GetEndpoint(), name)
	default: // the others name nothing of the user but the user
	}
}

// erasedName keeps a delivery's endpoints apart, whose attempts have rows of their own. It only has to be
// the same as in eraseUser.
func erasedName(endpoint, alias string) string {
	if endpoint == "" {
		return ""
	}
	sum := md5.Sum([]byte(alias + "/" + endpoint))
	return "erased:" + hex.EncodeToString(sum[:4])
}
