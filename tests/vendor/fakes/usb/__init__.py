"""A double of PyUSB with one candleLight adapter, as far as the package ``gs_usb`` needs it.

Written from: PyUSB 1.3 (usb/core.py: ``find``, ``Device``, ``USBError`` with errno, a time-out
being ``USBTimeoutError`` of errno 110), the package gs_usb 0.3 (its transfers), and Linux's
drivers/net/can/usb/gs_usb.c (struct gs_host_frame, gs_device_bt_const).

Oddities kept: a transfer to a device that was unplugged raises errno 19 at once, and a handle
stays dead when it comes back. What was sent comes back with its echo_id.
"""
