// Package localtime answers questions about local time in a user's zone: which day it is, when it is 09:00 next, when
// the day ends. It handles clock changes: an hour may be left out or come twice, and a day has 23 to 25 hours. It reads
// no clock; the moment is always a parameter.
package localtime
