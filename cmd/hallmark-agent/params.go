package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/boot/params"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
)

func newParams() *cobra.Command {
	var at place
	c := &cobra.Command{
		Use:   "params --dir DIR list|get NAME",
		Short: "Read a device's parameters",
		Long: `Reads a device's parameters: those its factory laid down (basic), and those it was told in the field. One that runs is asked on its own socket;
a virtual board that is switched off is read from a copy in memory. They are set by the fleet's server, never here.

  list      all of them, as JSON
  get NAME  one of them`,
		Example: "  hallmark-agent params --dir board1 list\n  hallmark-agent params --dir board1 get report.every",
		Args:    cobra.ArbitraryArgs,
		RunE:    func(cmd *cobra.Command, args []string) error { return readParams(cmd.Context(), at, args) },
	}
	at.flags(c, "the device's directory")
	return c
}

func readParams(ctx context.Context, at place, args []string) error {
	list := len(args) == 1 && args[0] == "list"
	if !list && (len(args) != 2 || args[0] != "get") {
		return &usageError{"params: want list or get NAME"}
	}
	all, doubt, err := paramsOf(ctx, at)
	if err != nil {
		return err
	}
	if list {
		return errors.Join(print(all), doubt)
	}
	for _, p := range all {
		if p.Name == args[1] {
			return print(p)
		}
	}
	return errors.Join(fmt.Errorf("%q: %w", args[1], params.ErrNotFound), doubt)
}

// paramsOf gives the parameters, and what is not believed of them.
func paramsOf(ctx context.Context, at place) (all []params.Parameter, doubt, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(at.dir, "local.sock"))
	if err == nil {
		return paramsFrom(conn)
	}
	if _, ok, bad := at.config(); bad != nil || ok {
		return nil, nil, errors.Join(fmt.Errorf("the device does not run: %w: start it with `hallmark-agent run --dir %s`", err, at.dir), bad)
	}
	b, err := openBoard(at.dir, virtual.Snapshot)
	if err != nil {
		return nil, nil, err
	}
	m, err := start(at.dir, &b.Board)
	if err != nil {
		return nil, nil, err
	}
	s, err := m.Params()
	if err != nil {
		return nil, nil, err
	}
	var schema wire.Schema
	if cur := m.Facts().Current; cur != nil {
		schema = cur.Release.Parameters
	}
	return append([]params.Parameter{}, params.Hide(s.List(), schema)...), s.Fault(), nil
}

// paramsFrom asks a device that runs.
func paramsFrom(conn net.Conn) (all []params.Parameter, doubt, err error) {
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(agent.LocalRequest{Op: "params"}); err != nil {
		return nil, nil, err
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return nil, nil, fmt.Errorf("the device hung up before it answered: %w", err)
	}
	var reply agent.LocalReply
	if err := json.Unmarshal(line, &reply); err != nil {
		return nil, nil, err
	}
	if reply.Error != "" {
		doubt = fmt.Errorf("the device answered: %s", reply.Error)
	}
	return append([]params.Parameter{}, reply.Params...), doubt, nil
}
