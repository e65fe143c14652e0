package client

import "encoding/json"

// key names one delivery. The receipt distinguishes two uses of one id; it is empty if the gateway sent none.
type key struct{ id, receipt string }

func keyOf(n Notification) key { return key{n.ID, n.Receipt} }

// frame is any frame from the server.
type frame struct {
	Type        string  `json:"type"`
	Session     string  `json:"session"`
	PingSeconds float64 `json:"ping_seconds"`
	AfterMS     int64   `json:"after_ms"`
	Code        string  `json:"code"`
	Message     string  `json:"message"`
	Notification
}

// idsFrame is an ack or a read. A gateway that sent no receipts gets none back.
type idsFrame struct {
	Type     string   `json:"type"`
	IDs      []string `json:"ids"`
	Receipts []string `json:"receipts,omitempty"`
}

func newIDsFrame(kind string, of []key) idsFrame {
	f := idsFrame{Type: kind, IDs: make([]string, len(of))}
	for i, k := range of {
		f.IDs[i] = k.id
		if k.receipt != "" && f.Receipts == nil {
			f.Receipts = make([]string, len(of))
		}
		if k.receipt != "" {
			f.Receipts[i] = k.receipt
		}
	}
	return f
}

const (
	// maxFrameBytes is half of what a gateway accepts in one frame by default (16 KiB).
	maxFrameBytes = 8 << 10
	// maxFrameIDs is well below the 256 ids that a gateway accepts.
	maxFrameIDs = 64
)

// chunks splits the keys into parts that each fit into a frame.
func chunks(of []key) (parts [][]key) {
	first, size := 0, 0
	for i, k := range of {
		bytes := encodedLen(k.id) + encodedLen(k.receipt)
		if i > first && (size+bytes > maxFrameBytes || i-first == maxFrameIDs) {
			parts = append(parts, of[first:i])
			first, size = i, 0
		}
		size += bytes
	}
	if first < len(of) {
		parts = append(parts, of[first:])
	}
	return parts
}

func encodedLen(text string) int {
	encoded, err := json.Marshal(text)
	if err != nil {
		return maxFrameBytes // cannot happen: encoding a string never fails
	}
	return len(encoded) + 1
}

type refreshFrame struct {
	Type  string `json:"type"`
	Token string `json:"token"`
}
