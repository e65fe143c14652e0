// Package request reads what upstream asks for: a [Request] is a valid record of whisper.requests.{lane}, as JSON or
// Protobuf, and [Request.Deliveries] makes of it what is accepted for each recipient.
package request
