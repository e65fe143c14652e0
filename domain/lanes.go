package domain

import (
	"fmt"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// Lane keeps traffic apart on every hop. Lower values go first.
type Lane int8

// The lanes, in the order in which they are served.
const (
	High Lane = iota
	Normal
	Low
)

// Lanes are all lanes in the order in which they are served.
var Lanes = [...]Lane{High, Normal, Low}

// String is the lane's name in topics, frames, tables and metrics.
func (l Lane) String() string {
	switch l {
	case High:
		return "high"
	case Normal:
		return "normal"
	case Low:
		return "low"
	default:
		return fmt.Sprintf("Lane(%d)", int8(l))
	}
}

// Proto is the lane in events.
func (l Lane) Proto() whisperv1.Lane { return whisperv1.Lane(l) + whisperv1.Lane_LANE_HIGH }

// ParseLane reads a lane's name.
func ParseLane(s string) (Lane, error) {
	for _, l := range Lanes {
		if l.String() == s {
			return l, nil
		}
	}
	return 0, fmt.Errorf("unknown lane %q: high, normal or low", s)
}

// LaneOf reads the lane of an event. A lane that only a newer version knows counts as normal, so that its delivery is
// not lost.
func LaneOf(l whisperv1.Lane) Lane {
	switch l {
	case whisperv1.Lane_LANE_HIGH:
		return High
	case whisperv1.Lane_LANE_LOW:
		return Low
	case whisperv1.Lane_LANE_NORMAL, whisperv1.Lane_LANE_UNSPECIFIED:
		return Normal
	default:
		return Normal
	}
}
