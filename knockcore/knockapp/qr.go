// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// quiet is how wide the empty border of a QR code is, in modules.
const quiet = 4

// qrCode is a QR code, in several forms.
type qrCode struct{ *qr.Code }

func newQR(text string) (qrCode, error) {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return qrCode{}, fmt.Errorf("making a QR code: %w", err)
	}
	code.Scale = 8
	return qrCode{code}, nil
}

// Terminal draws it with characters, two modules in each. Light modules are drawn, as
// terminals are dark; with colours it is right on every terminal.
func (c qrCode) Terminal(colours bool) string {
	var b strings.Builder
	for y := -quiet / 2; y < c.Size+quiet/2; y += 2 {
		if colours {
			b.WriteString("\x1b[97;40m")
		}
		for x := -quiet / 2; x < c.Size+quiet/2; x++ {
			upper, lower := c.Black(x, y), c.Black(x, y+1)
			switch {
			case upper && lower:
				b.WriteRune(' ')
			case upper:
				b.WriteRune('▄')
			case lower:
				b.WriteRune('▀')
			default:
				b.WriteRune('█')
			}
		}
		if colours {
			b.WriteString("\x1b[0m")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// SVG draws it as a scalable picture.
func (c qrCode) SVG() string {
	var path strings.Builder
	for y := range c.Size {
		for x := 0; x < c.Size; x++ {
			run := 0
			for c.Black(x+run, y) {
				run++
			}
			if run > 0 {
				fmt.Fprintf(&path, "M%d %dh%dv1h-%dz", x+quiet, y+quiet, run, run)
			}
			x += run
		}
	}
	side := c.Size + 2*quiet
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%[3]d" shape-rendering="crispEdges"><path fill="#fff" d="M0 0h%[1]dv%[2]dH0z"/><path d="%[4]s"/></svg>`+"\n",
		side, side, side*c.Scale, path.String())
}
