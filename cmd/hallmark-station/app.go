package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/station/durable"
	"github.com/hallmark-iot/hallmark/station/module"
	"github.com/hallmark-iot/hallmark/station/module/pkcs11"
	"github.com/hallmark-iot/hallmark/station/module/soft"
)

// app is the flags every command has.
type app struct {
	dir   string
	pinFD int
	json  bool

	sessions int // of the module, for signatures at once; 0: its own choice
}

const maxPIN = 256

// pin reads the PIN: a line from the descriptor, or typed.
func (a *app) pin(cmd *cobra.Command) ([]byte, error) {
	if a.pinFD >= 0 {
		f := os.NewFile(uintptr(a.pinFD), "pin")
		if f == nil {
			return nil, fault.New(fault.Invalid, "pin.missing", fmt.Sprintf("file descriptor %d is not open", a.pinFD), "open it for this program, or give another with --pin-fd, e.g. --pin-fd 3 3<pin.txt")
		}
		b, err := io.ReadAll(io.LimitReader(f, maxPIN+1))
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("read the PIN: %w", err)
		}
		b = bytes.TrimRight(b, "\r\n")
		if len(b) == 0 || len(b) > maxPIN || bytes.ContainsAny(b, "\r\n") {
			return nil, fault.New(fault.Invalid, "pin.invalid", "the PIN must be one line", "give one line, without anything behind it")
		}
		return b, nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil, fault.New(fault.Invalid, "pin.missing", "there is no terminal to ask for the PIN", "give it with --pin-fd, e.g. --pin-fd 3 3<pin.txt")
	}
	fmt.Fprint(cmd.ErrOrStderr(), "PIN: ")
	b, err := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(cmd.ErrOrStderr())
	if err != nil {
		return nil, fmt.Errorf("read the PIN: %w", err)
	}
	return b, nil
}

// with opens module and station, calls fn, and closes both.
func (a *app) with(cmd *cobra.Command, fn func(*station.Station) error) (err error) {
	cfg, err := station.ReadConfig(a.dir)
	if err != nil {
		return err
	}
	pin, err := a.pin(cmd)
	if err != nil {
		return err
	}
	defer clear(pin)
	var m module.Module
	if cfg.Module == "" {
		m, err = soft.Open(a.dir, pin)
	} else {
		m, err = pkcs11.Open(pkcs11.Config{Path: cfg.Module, Label: cfg.Token, PIN: pin, Sessions: a.sessions})
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	s, err := station.Open(a.dir, m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return fn(s)
}

// create makes the module of a new station.
func (a *app) create(cfg station.Config, pin []byte) (module.Module, error) {
	if cfg.Module == "" {
		return soft.Create(a.dir, pin)
	}
	return pkcs11.Create(pkcs11.Config{Path: cfg.Module, Label: cfg.Token, PIN: pin})
}

// say prints v as JSON, or the lines.
func (a *app) say(cmd *cobra.Command, v any, lines ...string) error {
	if a.json {
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	for _, l := range lines {
		fmt.Fprintln(cmd.OutOrStdout(), l)
	}
	return nil
}

// readFile reads at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Newf(fault.NotFound, "file.missing", "%w", err).With("give the path of a file that is there")
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, fault.New(fault.Invalid, "file.large", fmt.Sprintf("%s has more than %d bytes", path, limit), "see that it is the file that was meant")
	}
	return b, nil
}

func writeOut(path string, b []byte) error { return durable.WriteFile(path, b) }
