// SPDX-License-Identifier: EPL-2.0

package postfix

import (
	"path/filepath"
	"strings"
)

// An Agent is a service that delivers mail with smtp(8) or lmtp(8), which are one program.
type Agent struct {
	Entry
	Protocol string // smtp or lmtp: its parameters begin with that
}

// Agents returns the services of smtp(8) and lmtp(8) in master.cf.
func (s *System) Agents() (agents []Agent, err error) {
	all, err := s.Entries()
	for _, e := range all {
		if protocol := filepath.Base(e.Command); protocol == "smtp" || protocol == "lmtp" {
			agents = append(agents, Agent{e, protocol})
		}
	}
	return agents, err
}

// Values returns the effective values of parameters for each entry: from the -o options of the
// entry, from main.cf, or the defaults of this version of Postfix. A parameter that this version
// does not know is missing, unless it is set.
func (s *System) Values(all []Entry, names ...string) ([]map[string]string, error) {
	// Without -d, postconf(1) waits until main.cf has not changed for a second.
	out, err := s.output("postconf", append([]string{"-d"}, names...)...)
	if err != nil {
		return nil, err
	}
	defaults := map[string]string{}
	for line := range strings.Lines(out) {
		if name, value, found := strings.Cut(line, "="); found {
			defaults[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	var each []map[string]string
	for _, e := range all {
		values, err := s.valuesOf(e, defaults, names)
		if err != nil {
			return nil, s.atLine(e.Line, err)
		}
		each = append(each, values)
	}
	return each, nil
}

func (s *System) valuesOf(
	e Entry, defaults map[string]string, names []string,
) (map[string]string, error) {
	service, err := Open(s.Directory) // s keeps its configuration without the options
	if err != nil {
		return nil, err
	}
	for _, option := range e.Options() {
		if err := service.Config.Override(option); err != nil {
			return nil, err
		}
	}
	service.Config.SetReadOnly("service_name", e.Name)
	service.Config.SetReadOnly("process_name", filepath.Base(e.Command))
	values := map[string]string{}
	for _, name := range names {
		if value, known := defaults[name]; known {
			service.Config.SetDefault(name, value)
		}
		if service.Config.Source(name) == "" {
			continue
		}
		if values[name], err = service.Config.String(name); err != nil {
			return nil, err
		}
	}
	return values, nil
}
