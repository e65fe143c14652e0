package dispatch

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// patches knows how far each partition of whisper.profiles has come to this one. Intake hands a partition's patches on
// in order; what comes again from before that was handed on twice, and would undo what came after it. It is written to
// whisper.seen with the window, before the offset of whisper.changes is committed.
type patches struct {
	sources map[patchSource]int64 // the offset that comes next
	moved   map[patchSource]bool  // since it was written
	written int                   // epochs since all were written
}

type patchSource struct {
	topic     [16]byte
	partition int32
}

func newPatches() *patches {
	return &patches{sources: map[patchSource]int64{}, moved: map[patchSource]bool{}}
}

// again says whether a record of whisper.changes was there before, and notes it where not. What names no source, as
// an earlier version wrote it, is told by its offset alone.
func (p *patches) again(rec *kgo.Record) bool {
	s, ok := consumers.SourceOf(rec)
	if !ok {
		return false
	}
	from := patchSource{s.Topic, s.Partition}
	if s.Offset < p.sources[from] {
		return true
	}
	p.sources[from] = s.Offset + 1
	p.moved[from] = true
	return false
}

func (p *patches) restore(m *whisperv1.Seen) {
	for _, s := range m.GetPatchSources() {
		if len(s.GetTopicId()) != 16 {
			continue
		}
		from := patchSource{[16]byte(s.GetTopicId()), s.GetPartition()}
		p.sources[from] = max(p.sources[from], s.GetNext())
	}
}

// rewriteAfter is how many epochs pass until all sources are written anew, so that retention never takes the last
// word on one that rests: half an hour of a half second each, and the window's log keeps an hour at least.
const rewriteAfter = 3_600

// seal returns what an epoch has to write.
func (p *patches) seal() []*whisperv1.PatchSource {
	if p.written++; p.written >= rewriteAfter {
		p.written = 0
		for from := range p.sources {
			p.moved[from] = true
		}
	}
	if len(p.moved) == 0 {
		return nil
	}
	all := make([]*whisperv1.PatchSource, 0, len(p.moved))
	for from := range p.moved {
		all = append(all, &whisperv1.PatchSource{TopicId: from.topic[:], Partition: from.partition, Next: p.sources[from]})
	}
	clear(p.moved)
	return all
}
