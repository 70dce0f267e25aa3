package wire

import (
	"bytes"
	"testing"
)

func sampleChipArea() ChipArea {
	return ChipArea{
		Install: Install{
			Certificate: []byte{1}, Chain: [][]byte{{2}}, Bundle: []byte{3}, Release: []byte{4}, Product: "pump", Hardware: "A",
			Device: "00112233445566778899aabbccddeeff",
			Params: DeviceParams{Flash: Flash{Size: 4 << 20, Erase: 4096, Slots: 2, SlotSize: 1 << 20}, Servers: Servers{Device: "https://devices.example"}},
		},
		Identity: bytes.Repeat([]byte{5}, 32), Attest: bytes.Repeat([]byte{6}, 32),
		Places: []ChipPlace{{Component: "app", At: 4096}, {Component: "data", At: -4096}},
	}
}

func TestAChipAreaIsWholeOrNothing(t *testing.T) {
	data, err := EncodeChipArea(sampleChipArea())
	if err != nil {
		t.Fatal(err)
	}
	if a, err := DecodeChipArea(append(bytes.Clone(data), 0xff, 0xff)); err != nil || !bytes.Equal(a.Identity, sampleChipArea().Identity) || a.Install.Device != sampleChipArea().Install.Device {
		t.Fatalf("%+v, %v", a, err)
	}
	for n := range data {
		if _, err := DecodeChipArea(data[:n]); err == nil {
			t.Fatalf("cut at %d of %d: taken", n, len(data))
		}
	}
	for name, spoil := range map[string]func(*ChipArea){
		"no key": func(a *ChipArea) { a.Attest = nil }, "one key for two purposes": func(a *ChipArea) { a.Attest = a.Identity },
		"no certificate": func(a *ChipArea) { a.Install.Certificate = nil }, "no device": func(a *ChipArea) { a.Install.Device = "x" },
		"nowhere": func(a *ChipArea) { a.Places = nil }, "in two places": func(a *ChipArea) { a.Places[1].Component = "app" },
		"too large": func(a *ChipArea) { a.Install.Bundle = make([]byte, MaxChipArea) },
	} {
		a := sampleChipArea()
		spoil(&a)
		if _, err := EncodeChipArea(a); err == nil {
			t.Errorf("%s: written", name)
		}
	}
	if _, err := DecodeChipArea(bytes.Repeat([]byte{0xff}, 4096)); err == nil {
		t.Error("an erased area was read")
	}
}

func FuzzDecodeChipArea(f *testing.F) {
	data, err := EncodeChipArea(sampleChipArea())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(append(bytes.Clone(data), 0xff))
	f.Add(data[:len(data)-1])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := DecodeChipArea(data)
		if err != nil {
			return
		}
		again, err := EncodeChipArea(a)
		if err != nil || !bytes.HasPrefix(data, again) {
			t.Errorf("%+v: written as something else, %v", a, err)
		}
	})
}
