package localtime

import (
	"testing"
	"time"
)

func TestAZoneWithoutRulesIsUTC(t *testing.T) {
	t.Parallel()
	var z Zones
	for _, name := range []string{"Mars/Olympus_Mons", "Local", "../etc/passwd"} {
		if zone, known := z.Load(name); known || zone != time.UTC {
			t.Errorf("%s: %s, %v", name, zone, known)
		}
		if _, known := z.Load(name); known {
			t.Errorf("%s: known the second time", name)
		}
	}
	for name := range timezones() { // everything that a profile may name has rules
		if _, known := z.Load(name); !known {
			t.Errorf("%s has no rules", name)
		}
	}
}
