// SPDX-License-Identifier: EPL-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"scache/internal/client"
	"scache/internal/fdpass"
	"scache/internal/mailconf"
)

const defaultDir = "/etc/postfix"

// timeout bounds a conversation. It includes the time that master(8) takes to
// start the server.
const timeout = 10 * time.Second

// configDir returns the directory of main.cf.
func (c *control) configDir() string {
	for _, dir := range []string{c.dir, os.Getenv("MAIL_CONFIG")} {
		if dir != "" {
			return dir
		}
	}
	return defaultDir
}

// readConfig reads main.cf.
func (c *control) readConfig() (*mailconf.Config, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	conf := mailconf.New(host)
	if err := conf.ReadFile(c.configDir()); err != nil {
		return nil, fmt.Errorf("%w (option -c tells another directory)", err)
	}
	conf.AskPostconf(func(string, ...any) {}) // the daemon logs it
	return conf, nil
}

// path returns where the server's socket is.
func (c *control) path() (string, error) {
	if c.socket != "" {
		return c.socket, nil
	}
	conf, err := c.readConfig()
	if err != nil {
		return "", fmt.Errorf("where is the server? %w, or --socket its path", err)
	}
	r := conf.Reader()
	path := filepath.Join(r.String("queue_directory"), "private", r.String("connection_cache_service_name"))
	return path, r.Err
}

func dial(path string, timeout time.Duration) (*client.Client, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, explainDial(path, err)
	}
	conn.SetDeadline(time.Now().Add(timeout))
	return client.Detect(fdpass.New(conn)), nil
}

func explainDial(path string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.ENOENT):
		hint = ": there is no such socket; options -c and --socket tell another one"
	case errors.Is(err, syscall.ECONNREFUSED):
		hint = ": nobody listens; is Postfix running? (postfix status)"
	case errors.Is(err, syscall.EACCES):
		hint = ": only root and the mail system's own user may connect"
	}
	return fmt.Errorf("connect to %s: %w%s", path, errors.Unwrap(err), hint)
}

// explain adds what can be done about an error of a conversation.
func explain(path string, err error) error {
	if err == nil {
		return nil
	}
	hint := ""
	switch {
	case errors.Is(err, client.ErrStock):
		hint = "; only save and find work with it (scachectl enable switches to this server)"
	case errors.Is(err, os.ErrDeadlineExceeded):
		hint = fmt.Sprintf(": nobody has answered for %v; see the mail log", timeout)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		hint = ": the server has hung up: only root and the mail system's own user may ask; see the mail log"
	}
	return fmt.Errorf("%s: %w%s", path, err, hint)
}

// ask connects, and has the server asked something.
func (c *control) ask(question func(*client.Client) error) error {
	path, err := c.path()
	if err != nil {
		return err
	}
	cl, err := dial(path, cmp.Or(c.patience, timeout))
	if err != nil {
		return err
	}
	defer cl.Close()
	return explain(path, question(cl))
}
