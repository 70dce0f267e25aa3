package machine

import (
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/wire"
)

// Data that programs read lies in memory, one copy for all of them, for as long as the release that runs has a program that names it.

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
func (m *Machine) give(c wire.Component) (given []launch.Given, err error) {
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
	return given, nil
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

// keepData gives up what no program of the release reads; without a release that is all.
func (m *Machine) keepData(r *wire.Release) error {
	kept := map[string]bool{}
	if r != nil {
		for _, c := range r.Components {
			for _, d := range reads(*r, c) {
				kept[dataKey(d)] = true
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
