package dispatch

import "time"

// allowance is how much a second broadcasts may use of one thing: records, or connected users. It has the law of [pace] and
// nothing else, so both follow the same one.
type allowance struct {
	first, least float64

	perSecond float64 // 0: no pace
	peak      float64 // before the last cut; 0: there was none, or it is passed
	cause     hold    // of the last cut
	stepped   time.Time
	cut       time.Time
	lowest    time.Time // since when it is about the least; zero: it is more
	told      int       // by alerts that met it as it is
	next      time.Time // when more may be used
	used      time.Time
	meter     meter
}

// begin gives it a pace where it has none. One that nobody used for as long as alerts are remembered tells little of now, so it
// begins anew as well.
func (a *allowance) begin(now time.Time) {
	if a.perSecond == 0 || a.perSecond > a.first && now.Sub(a.used) >= alertsGone && now.Sub(a.stepped) >= alertsGone {
		a.perSecond, a.peak, a.stepped, a.told, a.lowest = a.first, 0, now, 0, time.Time{}
	}
}

// end: there is no pace any more.
func (a *allowance) end() { a.perSecond, a.peak, a.told, a.lowest = 0, 0, 0, time.Time{} }

// tell notes that an alert that began to wait at the time of has told n things of the pace that was in force then. One that began right
// after a step tells of the pace before it: what the new one fills has not filled yet.
func (a *allowance) tell(of time.Time, n int) {
	if of.Sub(a.stepped) >= probeSettle {
		a.told += n
	}
}

// halve: too many alerts waited too long at the time of. It says whether that can have been because of what was used, and what
// was used then was not less already.
func (a *allowance) halve(now, of time.Time, h hold) bool {
	if a.perSecond == 0 || now.Sub(a.cut) < paceStep || of.Before(a.cut) || of.Sub(a.used) >= settle {
		return false
	}
	a.peak, a.perSecond = a.perSecond, max(a.perSecond/2, a.least)
	a.cut, a.stepped, a.cause, a.told = now, now, h, 0
	if a.perSecond == a.least && a.lowest.IsZero() {
		a.lowest = now
	}
	return true
}

// step lets it grow where enough alerts have told how they fare with it as it is, it is used, and nothing is in trouble.
func (a *allowance) step(now time.Time, trouble func(time.Time) bool) {
	switch {
	case a.perSecond == 0 || a.told < stepAlerts || now.Sub(a.stepped) < paceStep:
		return
	case a.meter.rate(now) < a.perSecond/2: // nobody uses it
	case trouble(now):
	default:
		if a.perSecond >= 2*a.peak {
			a.peak = 0
		}
		if a.peak == 0 {
			a.perSecond *= paceGrows
		} else {
			a.perSecond += a.peak / 16
		}
		if a.perSecond >= 2*a.least {
			a.lowest = time.Time{}
		}
	}
	a.stepped, a.told = now, 0
}

// use notes that n were used, and says when more may be at that many a second; 0: at once.
func (a *allowance) use(now time.Time, n int, perSecond float64) time.Time {
	a.used = now
	a.meter.add(now, float64(n))
	if perSecond == 0 {
		a.next = now
		return now
	}
	if burst := now.Add(-paceBurst); a.next.Before(burst) { // what was not used before is made good for, up to paceBurst
		a.next = burst
	}
	a.next = a.next.Add(time.Duration(float64(n) / perSecond * float64(time.Second)))
	return a.next
}

// holds says what sets the pace, if there is one.
func (a *allowance) holds() hold {
	if a.perSecond == 0 {
		return holdNothing
	}
	return max(a.cause, holdAlerts)
}
