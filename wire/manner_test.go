package wire

import (
	"bytes"
	"testing"
)

func TestWindowsAndMannersAreWithinBounds(t *testing.T) {
	command := func(change func(c *Command)) Command {
		c := Command{
			ID: "c", Product: "pump", Act: ActInstall, Devices: DeviceSet{Root: make([]byte, 32), Count: 1}, Release: make([]byte, 32), Issued: 1, Expires: 2,
		}
		change(&c)
		return c
	}
	for name, c := range map[string]struct {
		change func(c *Command)
		ok     bool
	}{
		"forced, at any time":     {func(*Command) {}, true},
		"a window":                {func(c *Command) { c.Window = &Window{Days: 127, From: 1439, Minutes: 1440} }, true},
		"softly":                  {func(c *Command) { c.Manner, c.Grace = Soft, 60 }, true},
		"by consent, in a window": {func(c *Command) { c.Manner, c.Window = Consent, &Window{Minutes: 1} }, true},
		"no eighth day":           {func(c *Command) { c.Window = &Window{Days: 128, Minutes: 1} }, false},
		"no 25th hour":            {func(c *Command) { c.Window = &Window{From: 1440, Minutes: 1} }, false},
		"never open":              {func(c *Command) { c.Window = &Window{From: 60} }, false},
		"open twice":              {func(c *Command) { c.Window = &Window{Minutes: 1441} }, false},
		"no such manner":          {func(c *Command) { c.Manner = "gently" }, false},
		"softly for ever":         {func(c *Command) { c.Manner = Soft }, false},
		"too long a grace":        {func(c *Command) { c.Manner, c.Grace = Soft, 31*24*3600 }, false},
		"a grace that overflows":  {func(c *Command) { c.Manner, c.Grace = Soft, 1<<64-1 }, false},
		"a grace of consent":      {func(c *Command) { c.Manner, c.Grace = Consent, 60 }, false},
		"a grace of nothing":      {func(c *Command) { c.Grace = 60 }, false},
		"a way back by consent":   {func(c *Command) { c.Act, c.Manner = ActRollback, Consent }, false},
		"a quarantine in a window": {func(c *Command) {
			c.Act, c.Release, c.TTL, c.Window = ActQuarantine, nil, 60, &Window{Minutes: 1}
		}, false},
	} {
		data, err := Marshal(command(c.change))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeCommand(data); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		waits *Waits
		ok    bool
	}{
		"nothing":          {nil, true},
		"consent":          {&Waits{For: WaitsForConsent, Command: make([]byte, 32), Since: 1}, true},
		"a window":         {&Waits{For: WaitsForWindow, Command: make([]byte, 32), Since: 1, Until: 2}, true},
		"something else":   {&Waits{For: "rain", Command: make([]byte, 32)}, false},
		"with no command":  {&Waits{For: WaitsForGrace, Command: make([]byte, 31)}, false},
		"since the future": {&Waits{For: WaitsForGrace, Command: make([]byte, 32), Since: 1 << 63}, false},
		"for ever":         {&Waits{For: WaitsForGrace, Command: make([]byte, 32), Until: 1 << 63}, false},
	} {
		data, err := Marshal(Checkin{Nonce: make([]byte, 32), State: "active", Waits: c.waits})
		if err != nil {
			t.Fatal(err)
		}
		in, err := DecodeCheckin(data)
		if (err == nil) != c.ok || c.ok && c.waits != nil && !bytes.Equal(in.Waits.Command, c.waits.Command) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Who knows nothing of windows and manners reads commands without them as ever: they have the bytes that they had before.
func TestACommandWithoutAWindowIsAsItWas(t *testing.T) {
	data, err := EncodeCommand(Command{
		ID: "c", Product: "p", Act: ActInstall, Devices: DeviceSet{Root: make([]byte, 32), Count: 1}, Release: make([]byte, 32), Issued: 1, Expires: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	if data[0] != 0xa7 { // a map of its seven members
		t.Errorf("it begins with %#x", data[0])
	}
}
