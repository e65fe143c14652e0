package consumers

import "context"

// passEmpty is [Partition.PassEmpty]. It asks Kafka only where nothing came since it was called last.
func (w *worker) passEmpty(ctx context.Context, r *Reader, end int64) (passed bool, err error) {
	from, stands := w.stands()
	if from >= end || !stands {
		return from >= end, nil
	}
	topic, id := w.part.Topic, w.part.ID
	start, _, err := r.Bounds(ctx, topic, id)
	if err != nil {
		return false, err
	}
	if start < end {
		empty, err := r.emptyUpTo(ctx, topic, id, max(from, start), end)
		if err != nil || !empty {
			return false, err
		}
		if start, _, err = r.Bounds(ctx, topic, id); err != nil { // retention may have gone on
			return false, err
		}
	}
	w.mu.Lock()
	same := w.position == from && len(w.queue) == 0
	w.mu.Unlock()
	if !same || w.stopped.Load() || w.ctx.Err() != nil {
		return false, nil
	}
	if from >= 0 && !w.loop.accepts(w, max(0, min(start, end)-from), start) {
		return false, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.passTo(end)
	w.signal()
	return w.position >= end, nil
}

// stands says where the position is, and whether nothing is queued and it has not moved since it was asked last.
func (w *worker) stands() (position int64, stands bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	stands = w.position == w.stood && len(w.queue) == 0
	w.stood = w.position
	return w.position, stands
}
