package machine

import (
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/wire"
)

// Data that programs read lies in memory, one copy for all of them, for as long as the release that runs has a program that names it. A channel is there as long as
// what runs has the two programs that name it.

// reads gives the data components that a program of the release names, as they are read: by these it is another program when one of them is another.
func reads(r wire.Release, c wire.Component) (out []wire.Component) {
	for _, name := range c.Reads() {
		if d, ok := r.Data(name); ok {
			out = append(out, d.Plain())
		}
	}
	return out
}

// give opens what a program of the release that runs is given. The files are the caller's to close.
func (m *Machine) give(r wire.Release, c wire.Component) (given []launch.Given, err error) {
	for _, name := range c.Reads() {
		d, err := m.dataOf(name)
		if err != nil {
			return given, err
		}
		g, err := d.Give()
		if err != nil {
			return given, err
		}
		given = append(given, g)
	}
	for _, name := range c.Talks() {
		ch, end, err := m.channelOf(r, c, name)
		if err != nil {
			return given, err
		}
		more, err := ch.Give(end)
		given = append(given, more...)
		if err != nil {
			return given, err
		}
	}
	return given, nil
}

// talk names a channel by what it is called and whom it is between, in rising order.
type talk struct{ name, first, second string }

func talkOf(r wire.Release, c wire.Component, name string) talk {
	peer := r.Peer(c, name)
	return talk{name, min(c.Name, peer), max(c.Name, peer)}
}

// talks are the channels of a program: by these it is another program when one of them leads to another.
func talks(r wire.Release, c wire.Component) (out []talk) {
	for _, name := range c.Talks() {
		out = append(out, talkOf(r, c, name))
	}
	return out
}

// channelOf is a channel of a program, and which end of it is the program's.
func (m *Machine) channelOf(r wire.Release, c wire.Component, name string) (*launch.Channel, int, error) {
	t, end := talkOf(r, c, name), 0
	if c.Name == t.second {
		end = 1
	}
	if ch := m.channels[t]; ch != nil {
		return ch, end, nil
	}
	ch, err := launch.NewChannel(name)
	if err != nil {
		return nil, 0, err
	}
	if m.channels == nil {
		m.channels = map[talk]*launch.Channel{}
	}
	m.channels[t] = ch
	return ch, end, nil
}

// dataOf gives a data component of the release that runs; it is read from flash once.
func (m *Machine) dataOf(name string) (*launch.Data, error) {
	bytes, c, err := m.boot.Component(name)
	if err != nil {
		return nil, err
	}
	key := dataKey(c)
	if d := m.data[key]; d != nil {
		return d, nil
	}
	plain, err := m.readable(bytes, c)
	if err != nil {
		return nil, err
	}
	d, err := launch.NewData(plain, c.Plain())
	if err != nil {
		return nil, err
	}
	if m.data == nil {
		m.data = map[string]*launch.Data{}
	}
	m.data[key] = d
	return d, nil
}

// dataKey names data by what it is and what it is called.
func dataKey(c wire.Component) string { return c.Name + "\x00" + string(c.Plain().Digest) }

// keep gives up what no program of the release reads or talks over; without a release that is all.
func (m *Machine) keep(r *wire.Release) error {
	kept, spoken := map[string]bool{}, map[talk]bool{}
	if r != nil {
		for _, c := range r.Components {
			for _, d := range reads(*r, c) {
				kept[dataKey(d)] = true
			}
			for _, t := range talks(*r, c) {
				spoken[t] = true
			}
		}
	}
	var faults []error
	for key, d := range m.data {
		if !kept[key] {
			faults = append(faults, d.Close())
			delete(m.data, key)
		}
	}
	for t, ch := range m.channels {
		if !spoken[t] {
			faults = append(faults, ch.Close())
			delete(m.channels, t)
		}
	}
	return errors.Join(faults...)
}

// readsWithin says whether what programs of a release read has a place in this machine's memory: in half of it.
func readsWithin(r wire.Release) error {
	have, err := launch.Memory()
	if err != nil {
		return err
	}
	named, sum := map[string]bool{}, uint64(0)
	for _, c := range r.Components {
		for _, d := range reads(r, c) {
			if named[d.Name] {
				continue
			}
			named[d.Name] = true
			if sum += d.Size; d.Size > have/2 || sum > have/2 {
				return fmt.Errorf("data %s: what programs read lies in memory, of which this device has %d bytes, and is to take no more than half", d.Name, have)
			}
		}
	}
	return nil
}
