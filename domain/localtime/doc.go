// Package localtime answers questions about the clock on a user's wall: which day it is there, when it shows 09:00 next,
// when that day ends. Clock changes are what it is about: an hour may be left out or come twice, and a day has 23 to 25
// hours. It reads no clock; the moment is always a parameter.
package localtime
