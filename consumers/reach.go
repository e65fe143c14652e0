package consumers

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Reach is what a failure stops. Each is wider than the one before.
type Reach uint8

const (
	// ReachRecord stops one record: it is dead-lettered with the reason and passed over.
	ReachRecord Reach = iota + 1
	// ReachDelivery stops one delivery: a fact says how it ended, and the others of its partition go on.
	ReachDelivery
	// ReachPartition stops one partition: nothing is committed past it, it is told, and it is tried again.
	ReachPartition
	// ReachProcess ends the process: no partition of it can go on.
	ReachProcess
)

// String is the word of documents and logs.
func (r Reach) String() string {
	switch r {
	case ReachRecord:
		return "record"
	case ReachDelivery:
		return "delivery"
	case ReachPartition:
		return "partition"
	case ReachProcess:
		return "process"
	default:
		return "unknown"
	}
}

// A Failure is an error whose reach is known where it happened. Help says what an operator can do; it may be empty.
type Failure struct {
	Reach Reach
	Help  string
	Err   error
	// Contained: what caused it won't cause it again (a record that is set aside), so another try needs no
	// longer and longer wait.
	Contained bool
}

func (f *Failure) Error() string { return f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }

// Reaching gives err a reach. A nil err stays nil.
func Reaching(reach Reach, err error) error {
	if err == nil {
		return nil
	}
	return &Failure{Reach: reach, Err: err}
}

// ReachOf classifies an error: the one place that says how far a failure reaches. What nobody has classified
// stops a partition: it may pass, and others need not suffer from it. A nil err has no reach (0).
func ReachOf(err error) Reach {
	reach, _, _ := classify(err)
	return reach
}

// HelpFor is what an operator can do about err; empty where nothing is known.
func HelpFor(err error) string {
	_, help, _ := classify(err)
	return help
}

func classify(err error) (reach Reach, help string, contained bool) {
	if err == nil {
		return 0, "", false
	}
	var f *Failure
	if errors.As(err, &f) {
		return f.Reach, f.Help, f.Contained
	}
	if errors.Is(err, kgo.ErrClientClosed) {
		return ReachProcess, "", false
	}
	for _, known := range kafkaReaches {
		if errors.Is(err, known.err) {
			return known.reach, known.help, false
		}
	}
	return ReachPartition, "", false
}

// kafkaReaches are Kafka's own errors. MESSAGE_TOO_LARGE from a broker is no record's: the publisher refuses what is
// over Whisper's own bound, so the topic's is lower, and the client fails a whole batch, innocent records among it.
var kafkaReaches = []struct {
	err   error
	reach Reach
	help  string
}{
	{kerr.SaslAuthenticationFailed, ReachProcess, helpCredentials},
	{kerr.UnsupportedSaslMechanism, ReachProcess, helpCredentials},
	{kerr.IllegalSaslState, ReachProcess, helpCredentials},
	{kerr.GroupAuthorizationFailed, ReachProcess, "allow the role's user to READ its consumer group"},
	{kerr.ClusterAuthorizationFailed, ReachProcess, "allow the role's user IDEMPOTENT_WRITE on the cluster"},
	{kerr.MessageTooLarge, ReachPartition, fmt.Sprintf("raise the topic's max.message.bytes to at least %d", defaultMessageMax)},
	{kerr.RecordListTooLarge, ReachPartition, "raise the topic's segment.bytes"},
	{kerr.TopicAuthorizationFailed, ReachPartition, "allow the role's user to READ and WRITE the topic"},
	{kerr.UnknownTopicOrPartition, ReachPartition, helpTopics},
	{kerr.UnknownTopicID, ReachPartition, helpTopics},
	{kerr.InvalidTopicException, ReachPartition, helpTopics},
	{kerr.PolicyViolation, ReachPartition, "see the broker's log: a policy of the cluster refuses the record"},
	{kerr.InvalidTimestamp, ReachPartition, "see the topic's message.timestamp.before.max.ms and .after.max.ms, and the clocks"},
}

const (
	// defaultMessageMax is Kafka's own default of max.message.bytes.
	defaultMessageMax = 1_048_588

	helpCredentials = "check kafka-sasl-mechanism, kafka-sasl-user and kafka-sasl-password" //nolint:gosec // names of settings, no credentials
	helpTopics      = "run `whisper topics apply`"
)

// A Panic is a bug that a record or an input has met. Its text has the first lines of the stack.
type Panic struct {
	Value any
	Stack string
}

func (p *Panic) Error() string { return fmt.Sprintf("panic: %v at %s", p.Value, p.Stack) }

// Contain runs do and turns a panic into an error, a [Panic] of [ReachPartition]: whatever do was changing may be
// half changed. Who knows that nothing was may give it a narrower reach.
func Contain(do func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &Failure{
				Reach: ReachPartition, Help: "report it with the log's stack: it is a bug of Whisper's",
				Err: &Panic{Value: value, Stack: stackLines(debug.Stack())},
			}
		}
	}()
	return do()
}

// maxStackLines is how much of a stack goes into a reason: where it happened and who called.
const maxStackLines = 6

// stackLines are the first frames below the panic, without addresses and arguments.
func stackLines(stack []byte) string {
	lines := strings.Split(string(stack), "\n")
	for i, line := range lines { // what is above belongs to the runtime and to recover
		if strings.HasPrefix(line, "panic(") {
			lines = lines[min(i+2, len(lines)):]
			break
		}
	}
	var frames []string
	for i := 0; i+1 < len(lines) && len(frames) < maxStackLines; i += 2 {
		name, file := lines[i], strings.TrimSpace(lines[i+1])
		if at := strings.LastIndexByte(name, '('); at > 0 {
			name = name[:at]
		}
		file, _, _ = strings.Cut(file, " +0x")
		name, file = name[strings.LastIndexByte(name, '/')+1:], file[strings.LastIndexByte(file, '/')+1:]
		if strings.HasPrefix(name, "runtime.") {
			continue
		}
		frames = append(frames, name+" "+file)
	}
	return strings.Join(frames, " < ")
}
