package cli

import (
	"fmt"
	"io"
	"time"
)

// ProgressLine rewrites one line on a terminal; elsewhere it writes a line every ten seconds.
type ProgressLine struct {
	What, Of string
	Quiet    time.Duration // says nothing before
	W        io.Writer
	Live     bool
	Now      func() time.Time
	begun    time.Time
	last     time.Time
}

// Show prints how far the work is. It can be called as often as the work likes.
func (l *ProgressLine) Show(done, total int64) {
	now := l.Now()
	if l.begun.IsZero() {
		l.begun = now
	}
	if now.Sub(l.begun) < l.Quiet {
		return
	}
	if !l.Live && now.Sub(l.last) < 10*time.Second {
		return
	}
	l.last = now
	percent := 100.0
	if total > 0 {
		percent = 100 * float64(min(done, total)) / float64(total)
	}
	rate := 0.0
	if seconds := now.Sub(l.begun).Seconds(); seconds > 0 {
		rate = float64(done) / seconds
	}
	text := fmt.Sprintf("%s: %d of %d %s, %.1f%%, %.0f/s", l.What, done, total, l.Of, percent, rate)
	if l.Live {
		_, _ = fmt.Fprintf(l.W, "\r\x1b[K%s", text)
		return
	}
	_, _ = fmt.Fprintln(l.W, text)
}

// End finishes the line that Show rewrote, so that what is printed next begins on a line of its own.
func (l *ProgressLine) End() {
	if l.Live && !l.last.IsZero() {
		_, _ = fmt.Fprintln(l.W)
		l.last = time.Time{}
	}
}
