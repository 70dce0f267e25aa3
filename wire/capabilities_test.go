package wire

import (
	"bytes"
	"strings"
	"testing"
)

func released(c *Capabilities) Release {
	r := sampleRelease()
	r.Components[0].Capabilities = c
	return r
}

// A release says what its programs may, word for word, and one that says nothing of it is written as it always was.
func TestCapabilitiesAreInTheRelease(t *testing.T) {
	plain, err := EncodeRelease(released(nil))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(plain, []byte{0x08, 0xf6}) {
		t.Error("no capabilities are written as some")
	}
	for _, c := range []*Capabilities{
		{ConnectTCP: []uint16{80, 443}, BindTCP: []uint16{8080}, UDP: true},
		{Read: []string{"/etc/hosts", "/usr/lib"}, Devices: []string{"/dev/i2c-1", "/dev/ttyS0"}, Memory: MinMemory, Tasks: MinTasks, CPU: 20},
		{Runtime: RuntimeWASM, Memory: 64 << 20, Disk: 1 << 20, Read: []string{"/etc/hostname"}},
	} {
		payload, err := EncodeRelease(released(c))
		if err != nil {
			t.Fatalf("%s: %v", c, err)
		}
		r, err := DecodeRelease(payload)
		if err != nil || r.Components[0].Capabilities.String() != c.String() {
			t.Errorf("%s came back as %s, %v", c, r.Components[0].Capabilities, err)
		}
	}
}

func TestCapabilitiesThatContradictThemselvesAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		is   Capabilities
		says string
	}{
		"nothing":                 {Capabilities{}, "empty"},
		"another runtime":         {Capabilities{Runtime: "jvm"}, "runtime"},
		"a module's network":      {Capabilities{Runtime: RuntimeWASM, ConnectTCP: []uint16{443}}, "WebAssembly"},
		"a module's device":       {Capabilities{Runtime: RuntimeWASM, Devices: []string{"/dev/ttyS0"}}, "WebAssembly"},
		"a module's tasks":        {Capabilities{Runtime: RuntimeWASM, Tasks: 20}, "WebAssembly"},
		"data without a name":     {Capabilities{Data: []string{""}}, "want a name"},
		"data that is two":        {Capabilities{Data: []string{"a:b"}}, "want a name"},
		"data in a folder":        {Capabilities{Data: []string{"../keys"}}, "want a name"},
		"data twice":              {Capabilities{Data: []string{"a", "a"}}, "rising"},
		"hardly any disk":         {Capabilities{Disk: MinDisk - 1}, "disk of"},
		"all disks":               {Capabilities{Disk: MaxDisk + 1}, "disk of"},
		"a channel in a folder":   {Capabilities{Channels: []string{"a/b"}}, "want a name"},
		"no port":                 {Capabilities{ConnectTCP: []uint16{0}}, "port 0"},
		"a port twice":            {Capabilities{BindTCP: []uint16{80, 80}}, "rising"},
		"another order":           {Capabilities{Read: []string{"/usr", "/opt"}}, "rising"},
		"too many":                {Capabilities{ConnectTCP: make([]uint16, MaxGranted+1)}, "at most"},
		"everything":              {Capabilities{Read: []string{"/"}}, "too much"},
		"all processes":           {Capabilities{Read: []string{"/proc"}}, "too much"},
		"itself":                  {Capabilities{Read: []string{"/proc/self/mem"}}, "too much"},
		"a way up":                {Capabilities{Read: []string{"/opt/../etc"}}, "shortest form"},
		"no absolute path":        {Capabilities{Read: []string{"opt"}}, "absolute"},
		"a path that ends a line": {Capabilities{Read: []string{"/opt\nread /"}}, "absolute"},
		"a path without end":      {Capabilities{Read: []string{"/" + strings.Repeat("x", 300)}}, "bytes"},
		"what is granted above":   {Capabilities{Read: []string{"/opt", "/opt/a"}}, "above"},
		"a device as a file":      {Capabilities{Read: []string{"/dev/ttyS0"}}, "devices"},
		"a file as a device":      {Capabilities{Devices: []string{"/etc/passwd"}}, "below /dev"},
		"the memory":              {Capabilities{Devices: []string{"/dev/mem"}}, "whole device"},
		"the disk":                {Capabilities{Devices: []string{"/dev/mmcblk0"}}, "whole device"},
		"the TPM":                 {Capabilities{Devices: []string{"/dev/tpmrm0"}}, "whole device"},
		"too little memory":       {Capabilities{Memory: 1}, "memory"},
		"too many tasks":          {Capabilities{Tasks: MaxTasks + 1}, "tasks"},
		"too much time":           {Capabilities{CPU: MaxCPU + 1}, "percent"},
	} {
		if _, err := EncodeRelease(released(&c.is)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	data := sampleRelease()
	data.Components[0].Kind, data.Components[0].Health, data.Components[0].Capabilities = KindData, HealthNone, &Capabilities{UDP: true}
	if _, err := EncodeRelease(data); err == nil || !strings.Contains(err.Error(), "only a program") {
		t.Errorf("capabilities of data: %v", err)
	}
}

// A capability that this program does not know is one it cannot hold anybody to: the whole release is refused.
func TestAnUnknownCapabilityIsRefused(t *testing.T) {
	payload, err := EncodeRelease(released(&Capabilities{CPU: 20}))
	if err != nil {
		t.Fatal(err)
	}
	known := []byte{0x08, 0xa1, 0x09, 0x14} // key 8: a map of one, 9: 20
	if bytes.Count(payload, known) != 1 {
		t.Fatalf("%x", payload)
	}
	for name, other := range map[string][]byte{"another": {0x08, 0xa1, 0x0a, 0x14}, "one more": {0x08, 0xa2, 0x09, 0x14, 0x0a, 0x14}, "none": {0x08, 0xa0}, "null": {0x08, 0xf6}} {
		if r, err := DecodeRelease(bytes.Replace(payload, known, other, 1)); err == nil {
			t.Errorf("%s: read as %s", name, r.Components[0].Capabilities)
		}
	}
}

// What a program reads is a data component of the same release.
func TestDataThatAProgramReadsIsInTheRelease(t *testing.T) {
	r := released(&Capabilities{Data: []string{"table"}})
	if _, err := EncodeRelease(r); err == nil || !strings.Contains(err.Error(), "no data component of the release") {
		t.Errorf("it is nowhere: %v", err)
	}
	table := r.Components[0]
	table.Name, table.Capabilities = "table", nil
	r.Components = append(r.Components, table)
	if _, err := EncodeRelease(r); err == nil || !strings.Contains(err.Error(), "no data component of the release") {
		t.Errorf("it is a program: %v", err)
	}
	r.Components[1].Kind, r.Components[1].Health, r.Components[1].Args = KindData, HealthNone, nil
	payload, err := EncodeRelease(r)
	if err != nil {
		t.Fatal(err)
	}
	if r, err = DecodeRelease(payload); err != nil || !strings.Contains(r.Components[0].Capabilities.String(), "read the data table") {
		t.Errorf("%s, %v", r.Components[0].Capabilities, err)
	}
}

// A channel has two ends, in two programs of one release.
func TestAChannelHasTwoEnds(t *testing.T) {
	program := func(name string, c Capabilities, h HealthCheck) Component {
		return Component{Name: name, Kind: KindExec, Version: "1.0.0", Size: 1, Digest: bytes.Repeat([]byte{1}, 32), Health: h, Capabilities: &c}
	}
	orders, module := Capabilities{Channels: []string{"orders"}}, Capabilities{Channels: []string{"orders"}, Runtime: RuntimeWASM}
	for says, c := range map[string][]Component{
		"named by 1 programs": {program("a", orders, HealthAlive)},
		"named by 3 programs": {program("a", orders, HealthAlive), program("b", orders, HealthAlive), program("c", orders, HealthAlive)},
		"two modules":         {program("a", module, HealthSocket), program("b", module, HealthSocket)},
		"it reads and":        {program("a", module, HealthAlive), program("b", orders, HealthAlive)},
		"":                    {program("a", module, HealthSocket), program("b", orders, HealthAlive)},
	} {
		r := sampleRelease()
		r.Components = c
		if _, err := EncodeRelease(r); (says == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}
