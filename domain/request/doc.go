// Package request reads what upstream asks for. A [Request] is a valid record of whisper.requests.{lane}, as JSON or
// Protobuf. [Request.Deliveries] makes the accepted delivery of each recipient from it.
//
// The deliveries are encoded by hand: what the recipients share is encoded once, and two fields are added for each
// ([Deliveries.Encode]).
package request
