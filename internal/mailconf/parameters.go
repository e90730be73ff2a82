// SPDX-License-Identifier: EPL-2.0

package mailconf

// A Parameter is one that the daemon reads.
type Parameter struct {
	Name    string
	Type    Type
	Default string
	Min     int // the least value of a Time, in seconds, or of an Int
}

// Type is the type of the value of a parameter.
type Type int

// The types of parameters.
const (
	String   Type = iota
	Time          // digits and one of s m h d w; seconds if there is none
	Int           // digits
	Bool          // yes or no
	Choice        // yes, no or auto
	ReadOnly      // set by the program itself
)

// Parameters is the table of all parameters that the daemon reads, by their
// names in postconf(5). Those that postconf(5) does not know are explained in
// scache-go(8).
var Parameters = []Parameter{
	{"command_directory", String, "/usr/sbin", 0},
	{"config_directory", ReadOnly, "/etc/postfix", 0},
	{"connection_cache_announce_protocol", Choice, "auto", 0},
	{"connection_cache_goodbye", String, "", 0},
	{"connection_cache_liveness_check", Bool, "yes", 0},
	{"connection_cache_memory_limit", Int, "0", 0}, // in bytes
	{"connection_cache_protocol_timeout", Time, "5s", 1},
	{"connection_cache_receiver_waiters", Int, "0", 0},
	{"connection_cache_receivers", String, "", 0},
	{"connection_cache_session_limit", Int, "0", 0},
	{"connection_cache_status_update_time", Time, "600s", 1},
	{"connection_cache_ttl_limit", Time, "2s", 1},
	{"daemon_timeout", Time, "18000s", 1},
	{"data_directory", String, "/var/lib/postfix", 0},
	{"debugger_command", String, "", 0},
	{"ipc_timeout", Time, "3600s", 1},
	{"mail_owner", String, "postfix", 0},
	{"maillog_file", String, "", 0},
	{"maillog_file_prefixes", String, "/var, /dev/stdout", 0},
	{"max_idle", Time, "100s", 1},
	{"myhostname", String, "", 0}, // the machine's own; see New
	{"postlog_service_name", String, "postlog", 0},
	{"process_id", ReadOnly, "", 0},
	{"process_name", ReadOnly, "scache", 0},
	{"queue_directory", String, "/var/spool/postfix", 0},
	{"service_name", ReadOnly, "", 0},
	{"syslog_facility", String, "mail", 0},
	{"syslog_name", String, "${multi_instance_name?{$multi_instance_name}:{postfix}}", 0},
}

// others are parameters that the daemon does not read, but that the values of
// those above are likely to refer to, or that its clients read.
var others = map[string]string{
	"connection_cache_service_name": "scache",
	"compatibility_level":           "0",
	"default_process_limit":         "100",
	"multi_instance_directories":    "",

	"mail_name":            "Postfix",
	"multi_instance_group": "",
	"multi_instance_name":  "",
	"daemon_directory":     "/usr/lib/postfix/sbin",
	"mydomain":             "localdomain",
	"setgid_group":         "postdrop",
}
