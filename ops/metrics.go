package ops

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/VictoriaMetrics/metrics"
)

// BuildInfo adds the version, commit and Go version of this program to /metrics.
func BuildInfo(version, commit, goVersion string) {
	metrics.GetOrCreateGauge(fmt.Sprintf(`whisper_build_info{version=%q,commit=%q,go=%q}`, version, commit, goVersion), nil).Set(1)
}

func exposeMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	writeMetrics(w)
}

// writeMetrics adds its meaning to each family; the library writes that line empty.
func writeMetrics(w io.Writer) {
	metrics.ExposeMetadata(true)
	var all bytes.Buffer
	metrics.WritePrometheus(&all, true)
	out := bufio.NewWriter(w)
	for line := range bytes.Lines(all.Bytes()) {
		if name, ok := strings.CutPrefix(strings.TrimRight(string(line), "\n "), "# HELP "); ok && !strings.Contains(name, " ") {
			_, _ = fmt.Fprintf(out, "# HELP %s %s\n", name, help(name))
			continue
		}
		_, _ = out.Write(line)
	}
	_ = out.Flush() // a caller who left in the middle is no error of ours
}

func help(name string) string {
	if text := helps[name]; text != "" {
		return text
	}
	switch {
	case strings.HasPrefix(name, "go_"):
		return "Of the Go runtime."
	case strings.HasPrefix(name, "process_"):
		return "Of the process, as the kernel counts it."
	}
	return "See docs/operations.md."
}

// helps are one line a family; docs/operations.md says more.
var helps = map[string]string{
	"whisper_build_info":                                    "The program that runs; always 1.",
	"whisper_queue_depth":                                   "Records of a lane that intake or dispatch has not committed; every projector measures the whole.",
	"whisper_topic_waiting_records":                         "Records of a topic that its group has not committed; every projector measures the whole.",
	"whisper_deadletters_total":                             "Records that a role could not use, by why.",
	"whisper_gateway_read_pauses_total":                     "How often a session was not read for a while, since it had named too many ids that it was not sent.",
	"whisper_partition_stopped":                             "1 while a partition can't go on.",
	"whisper_partition_stops_total":                         "How often a partition could not go on.",
	"whisper_publish_failures_total":                        "Records that Kafka refused, by how far that reaches.",
	"whisper_publish_retrying_records":                      "Facts and dead letters that are tried again.",
	"whisper_dispatch_bounced_attempts_total":               "Attempts whose node's or channel's topic took none.",
	"whisper_dispatch_unreadable_records_total":             "Records of changelogs that can't be read and were passed over.",
	"whisper_records_lost_total":                            "Offsets that retention removed before the group read them: of records, or of markers of transactions.",
	"whisper_delivery_attempts_total":                       "Attempts that were answered, by outcome.",
	"whisper_delivery_latency_seconds":                      "From the request's time until a socket or a provider took it, or a client acknowledged it.",
	"whisper_delivery_due_latency_seconds":                  "The same from when the delivery was due: behind its schedule, quiet hours, caps, and its user's absence.",
	"whisper_dispatch_in_flight_deliveries":                 "Deliveries that are out at a channel, or about to be.",
	"whisper_dispatch_parked_deliveries":                    "Deliveries that wait: for a time, a user, a provider.",
	"whisper_dispatch_timers":                               "Times at which something of a delivery is due.",
	"whisper_dispatch_away_recipients":                      "Recipients of broadcasts who wait to be there.",
	"whisper_partitions_owned":                              "Partitions of a group that this process has.",
	"whisper_kafka_connections":                             "Open connections to brokers, of all clients of the process.",
	"whisper_kafka_connects_total":                          "Connections to brokers that were tried, by outcome.",
	"whisper_kafka_requests_by_kind_total":                  "Requests to brokers, answered or not: produce, fetch, commit, other.",
	"whisper_kafka_requests_total":                          "Requests to brokers, by whether they were answered.",
	"whisper_kafka_request_seconds":                         "From writing a request until its answer was read; a fetch waits for records.",
	"whisper_kafka_written_bytes_total":                     "Bytes written to brokers.",
	"whisper_kafka_read_bytes_total":                        "Bytes read from brokers.",
	"whisper_kafka_throttled_seconds_total":                 "How long brokers asked to wait, by their quotas.",
	"whisper_projections_postgres_connections":              "Connections of the pool.",
	"whisper_projections_postgres_connections_limit":        "How many there may be.",
	"whisper_projections_postgres_waits_total":              "How often somebody had to wait for a connection of the pool.",
	"whisper_projections_postgres_waited_seconds_total":     "How long they waited.",
	"whisper_dispatch_deliveries_total":                     "Deliveries that dispatch took up.",
	"whisper_dispatch_attempts_total":                       "Attempts that dispatch handed to gateways and push.",
	"whisper_dispatch_facts_total":                          "Facts that dispatch wrote, by kind.",
	"whisper_dispatch_stray_records_total":                  "Records of changelogs that an earlier owner wrote after the partition was taken over, and that were put right.",
	"whisper_dispatch_tokens_moved_total":                   "Push tokens that another user registered; the earlier owner's endpoint is removed.",
	"whisper_dispatch_pace_records_per_second":              "How many records a second broadcasts may write or cause in this process; 0: as many as there is room for.",
	"whisper_dispatch_pace_connected_users_per_second":      "To how many connected users a second broadcasts may be sent in this process; 0: to as many as there is room for.",
	"whisper_dispatch_pace_held":                            "1: what holds broadcasts back in this process.",
	"whisper_dispatch_walked_records_total":                 "Records that broadcasts wrote or caused.",
	"whisper_dispatch_stopped_total":                        "Deliveries that a check put off or suppressed.",
	"whisper_dispatch_node_topics_deleted_total":            "Topics of gateways that never returned, deleted.",
	"whisper_dispatch_notices_total":                        "Settings that name what is not there, once a name and process.",
	"whisper_dispatch_commands_total":                       "Cancels, pauses, resumes and retracts, a partition each.",
	"whisper_dispatch_recalls_total":                        "Retractions for which facts were read back, a partition each.",
	"whisper_dispatch_recall_records_total":                 "Facts that were read back for retractions.",
	"whisper_dispatch_recalls_truncated_total":              "Retractions of which retention had removed the beginning.",
	"whisper_dispatch_recall_pushes_total":                  "Silent pushes that dispatch asked for.",
	"whisper_intake_requests_total":                         "Requests, by outcome.",
	"whisper_intake_deliveries_total":                       "Deliveries that intake made of requests.",
	"whisper_intake_request_seconds":                        "From taking a request up until its deliveries were written.",
	"whisper_intake_profiles_total":                         "Profile patches, by outcome.",
	"whisper_intake_broadcasts_total":                       "Broadcasts that intake let through.",
	"whisper_intake_categories_total":                       "Category records, by outcome.",
	"whisper_intake_templates_total":                        "Template records, by outcome.",
	"whisper_projections_facts_total":                       "Facts that were written to the tables.",
	"whisper_projections_aged_facts_total":                  "Facts of deliveries that are older than what is kept.",
	"whisper_projections_checkpoint_conflicts_total":        "Transactions that found their records written by another projector.",
	"whisper_projections_transactions_total":                "Transactions that were committed.",
	"whisper_projections_transaction_seconds":               "How long a transaction took.",
	"whisper_projections_lag_records":                       "Offsets of this projector's partitions that the tables lack: of records, or of markers of transactions.",
	"whisper_projections_lag_seconds":                       "Age of the oldest record of this projector's partitions that the tables lack.",
	"whisper_projections_last_commit_timestamp_seconds":     "When this projector committed last.",
	"whisper_projections_dropped_partitions_total":          "Days, or months, of deliveries that were older than what is kept and were dropped.",
	"whisper_projections_merged_months_total":               "Tables of a month that took the place of daily ones.",
	"whisper_projections_merged_rows_total":                 "Rows of counts by the minute that were merged.",
	"whisper_projections_postgres_up":                       "1: Postgres answers.",
	"whisper_push_apps_reloads_total":                       "Changes of the apps file or its secrets, by whether they were taken.",
	"whisper_push_breaker_open":                             "1: the provider is left alone for a while, since it fails.",
	"whisper_push_connections":                              "Open connections to the provider.",
	"whisper_push_connects_total":                           "Connections to the provider that were tried, by outcome.",
	"whisper_push_credential_stopped":                       "1: the provider refuses our credential; nothing is sent until it is replaced.",
	"whisper_push_in_flight":                                "Attempts that wait for the provider's answer.",
	"whisper_push_no_credential_total":                      "Attempts to endpoints whose app has no credential.",
	"whisper_push_paced_total":                              "Attempts that waited for their turn under the provider's rate.",
	"whisper_push_prune_suspended_total":                    "Endpoints that were not pruned, since too many were called dead at once.",
	"whisper_push_request_seconds":                          "How long the provider took to answer.",
	"whisper_push_retractions_total":                        "Silent pushes that take something back, by outcome.",
	"whisper_push_second_tries_total":                       "Requests that were sent again on another connection, since the first had died.",
	"whisper_push_unclassified_total":                       "Answers of the provider that we do not know.",
	"whisper_gateway_connections":                           "Sockets, those being refused or closed included.",
	"whisper_gateway_connections_limit":                     "Sockets that are possible.",
	"whisper_gateway_utilization_ratio":                     "Sockets through what is possible.",
	"whisper_gateway_high_utilization_total":                "How often it rose over 0.8.",
	"whisper_gateway_refusals_total":                        "Connections that were refused before the upgrade, by why.",
	"whisper_gateway_admission_waiting":                     "Clients that were told to come again and whose turn has not come.",
	"whisper_gateway_closes_total":                          "Sessions closed, by close code.",
	"whisper_gateway_write_blocked_sessions":                "Sessions whose socket takes nothing for now.",
	"whisper_gateway_frames_out_total":                      "Frames written.",
	"whisper_gateway_writes_total":                          "Writes that frames went out in.",
	"whisper_gateway_written_bytes_total":                   "Bytes written.",
	"whisper_gateway_frames_in_total":                       "Frames of clients, by type.",
	"whisper_gateway_unsettled_records":                     "Taken off Kafka, and not to be committed yet.",
	"whisper_gateway_receipt_hold_seconds":                  "How long a sending waits for its acknowledgement now.",
	"whisper_gateway_receipts_held":                         "Sendings that wait for their acknowledgement, or for Kafka.",
	"whisper_gateway_revocations":                           "Revocations held.",
	"whisper_gateway_revoked_sessions_total":                "Sessions closed by revocations.",
	"whisper_gateway_bad_revocations_total":                 "Revocation records that nobody can use.",
	"whisper_gateway_jwks_keys":                             "Keys of the key set.",
	"whisper_gateway_jwks_refreshes_total":                  "Readings of the key set, by outcome.",
	"whisper_gateway_certificate_expires_timestamp_seconds": "When the certificate ends.",
	"whisper_gateway_certificate_reloads_total":             "Readings of the certificate, by outcome.",
}
