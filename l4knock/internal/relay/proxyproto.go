// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"fmt"
	"net"

	"github.com/pires/go-proxyproto"
)

// What a version 2 header says about the knock, in TLVs of the range that the
// PROXY protocol leaves to applications. The values are UTF-8, without a
// terminator.
const (
	// TLVClient holds the ID of the client that knocked.
	TLVClient = proxyproto.PP2_TYPE_MIN_CUSTOM // 0xE0
	// TLVService holds the name of the service that was asked for.
	TLVService = proxyproto.PP2_TYPE_MIN_CUSTOM + 1 // 0xE1
)

// proxyHeader is the header for this connection, nil if none is wanted. Addresses
// that the protocol can't tell (unix to TCP, say) are left out: UNKNOWN in
// version 1, LOCAL in version 2. That one still carries the TLVs, though receivers
// need not look at them; PROXY without addresses would be refused by some.
func (o *Options) proxyHeader(down net.Conn) ([]byte, error) {
	if o.ProxyProtocol == 0 {
		return nil, nil
	}
	if err := o.Validate(); err != nil {
		return nil, err
	}
	source, destination := o.Source, o.Destination
	if source == nil {
		source = down.RemoteAddr()
	}
	if destination == nil {
		destination = down.LocalAddr()
	}
	h := proxyproto.HeaderProxyFromAddrs(byte(o.ProxyProtocol), source, destination)
	if o.ProxyProtocol == 2 {
		var tlvs []proxyproto.TLV
		if o.Client != "" {
			tlvs = append(tlvs, proxyproto.TLV{Type: TLVClient, Value: []byte(o.Client)})
		}
		if o.Service != "" {
			tlvs = append(tlvs, proxyproto.TLV{Type: TLVService, Value: []byte(o.Service)})
		}
		if err := h.SetTLVs(tlvs); err != nil {
			return nil, fmt.Errorf("making the PROXY protocol header: %w", err)
		}
	}
	b, err := h.Format()
	if err != nil {
		return nil, fmt.Errorf("making the PROXY protocol header: %w", err)
	}
	return b, nil
}
