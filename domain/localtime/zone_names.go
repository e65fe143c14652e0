package localtime

import (
	_ "embed"
	"strings"
	"sync"
)

const maxTimezoneBytes = 64

// badTimezone is the reason why a name is refused.
const badTimezone = nameError(`is not a time zone of the IANA database such as "Africa/Cairo"`)

type nameError string

func (e nameError) Error() string { return string(e) }

// timezoneList has the names of the IANA time zone database as Go 1.26 carries it. It has names and not rules because
// loading a zone reads files, and only the role that uses a zone may do that. A new zone is refused until the list is
// generated again (there are one or two new ones a year):
//
//	unzip -Z1 $(go env GOROOT)/lib/time/zoneinfo.zip | grep -v '/$' | LC_ALL=C sort > timezones.txt
//
//go:embed timezones.txt
var timezoneList string

var timezones = sync.OnceValue(func() map[string]struct{} {
	names := map[string]struct{}{}
	for name := range strings.Lines(timezoneList) {
		names[strings.TrimSpace(name)] = struct{}{}
	}
	return names
})

// CheckZone returns the name of a zone unchanged, or the reason why a record may not name it.
func CheckZone(s string) (string, error) {
	if _, ok := timezones()[s]; !ok || len(s) > maxTimezoneBytes {
		return "", badTimezone
	}
	return s, nil
}
