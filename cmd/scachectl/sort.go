// SPDX-License-Identifier: EPL-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"scache/internal/control"
)

// An order is what a list is sorted by. It is a flag.
type order string

// orders are the orders in which endpoints can be sorted.
var orders = []order{"label", "sessions", "age", "left"}

// unsorted is the order of the server: a list is printed while it arrives.
const unsorted order = "none"

// An orderFlag is a flag whose value is one of some orders.
type orderFlag struct {
	*order
	allowed []order
}

func (o order) String() string      { return string(o) }
func (f orderFlag) Type() string    { return "order" }
func (f orderFlag) names() []string { return joinOrders(f.allowed) }

func (f orderFlag) Set(text string) error {
	if !slices.Contains(f.allowed, order(text)) {
		return fmt.Errorf("want one of %s", strings.Join(f.names(), ", "))
	}
	*f.order = order(text)
	return nil
}

// next returns the order after this one.
func (o order) next() order { return orders[(slices.Index(orders, o)+1)%len(orders)] }

func joinOrders(all []order) (names []string) {
	for _, o := range all {
		names = append(names, string(o))
	}
	return names
}

// addOrder adds the option --sort to a command.
func addOrder(cmd *cobra.Command, o *order, help string, more ...order) {
	f := orderFlag{o, append(slices.Clone(orders), more...)}
	cmd.Flags().Var(f, "sort", help)
	cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(f.names(),
		cobra.ShellCompDirectiveNoFileComp))
}

// arrange sorts rows by an order, the highest value first, and returns at most limit of
// them, or all if limit is 0. Rows with equal values stay in their order.
func arrange[R any](rows []R, o order, limit int, key func(R) (sessions int, age,
	left control.Seconds)) []R {
	value := func(r R) int64 {
		sessions, age, left := key(r)
		switch o {
		case "sessions":
			return int64(sessions)
		case "age":
			return int64(age)
		case "left":
			return int64(left)
		}
		return 0
	}
	slices.SortStableFunc(rows, func(a, b R) int { return cmp.Compare(value(b), value(a)) })
	if limit > 0 && limit < len(rows) {
		return rows[:limit]
	}
	return rows
}

func keyOfBinding(b control.Binding) (int, control.Seconds, control.Seconds) {
	return 0, b.Age, b.Remaining
}
func keyOfSession(s control.Session) (int, control.Seconds, control.Seconds) {
	return 1, s.Age, s.Remaining
}
func keyOfEndpoint(e endpoint) (int, control.Seconds, control.Seconds) {
	return e.sessions, e.age, e.left
}
