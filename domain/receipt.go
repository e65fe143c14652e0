package domain

import (
	"errors"
	"strconv"
	"time"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// Why frames carry receipts: a client hands the receipt back with what it acknowledges or reports as read. The id alone
// would not be enough, because it may be used again once the window is over. Clients treat a receipt as opaque text.
// Today it is the delivery id's time, in base 36. It is no secret: readBy decides what a client may change, not the
// knowledge of a receipt.

// Receipt is the text in a delivery's frame that, with the notification's id and the user, names the delivery exactly.
func Receipt(id DeliveryID) string { return string(appendReceipt(nil, id.Time().UnixMilli())) }

// IsReceipt is whether receipt is [Receipt] of id; it allocates nothing.
func IsReceipt(receipt string, id DeliveryID) bool {
	var scratch [maxReceipt + 4]byte
	return string(appendReceipt(scratch[:0], id.Time().UnixMilli())) == receipt
}

func appendReceipt(b []byte, requestedMs int64) []byte {
	return strconv.AppendInt(b, max(requestedMs, 0), 36)
}

// maxReceipt is the number of characters for 48 bits.
const maxReceipt = 10

// ErrReceipt means that a text is not a receipt of Whisper.
var ErrReceipt = errors.New("is not a receipt: hand back the text of the notification's frame as it came")

// ReceiptOf names the delivery of a notification to a user that a receipt belongs to, or fails with [ErrReceipt].
func ReceiptOf(receipt, notificationID, userID string) (DeliveryID, error) {
	ms, err := strconv.ParseUint(receipt, 36, 48)
	if err != nil || ms == 0 || len(receipt) > maxReceipt || string(appendReceipt(nil, int64(ms))) != receipt {
		return DeliveryID{}, ErrReceipt
	}
	return NewDeliveryID(time.UnixMilli(int64(ms)), HashDelivery(notificationID, userID)), nil
}

// Timeless reports whether the writer of a fact knew only the notification and the user.
func (id DeliveryID) Timeless() bool { return [6]byte(id[:6]) == [6]byte{} }

// ProvenRead reports whether the node that reports a read held the attempt itself. Any other read is a client's word
// about an id that it may have guessed. Such a read counts only for a delivery that was handed out; see readBy.
func ProvenRead(ev *whisperv1.Event) bool { return ev.GetDeliveryRead().GetAttempt() > 0 }
