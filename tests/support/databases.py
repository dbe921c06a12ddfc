"""Databases that tests write: of messages of every kind."""

from __future__ import annotations

from typing import Final

#: Plain, extended, multiplexed, CAN FD and J1939 messages, units, an enumeration.
CAR_DBC: Final = """VERSION ""
NS_ :
BS_:
BU_: Engine Dashboard

BO_ 291 Motion: 8 Engine
 SG_ Speed : 0|16@1+ (0.1,0) [0|6553.5] "km/h" Dashboard
 SG_ Gear : 16|4@1+ (1,0) [0|5] "" Dashboard
 SG_ Slope : 24|8@1- (0.5,0) [-64|63.5] "%" Dashboard

BO_ 2566844926 Climate: 3 Dashboard
 SG_ Outside : 7|12@0- (0.5,-10) [-1034|1013.5] "degC" Engine

BO_ 500 Probe: 3 Engine
 SG_ Which M : 0|8@1+ (1,0) [0|0] "" Dashboard
 SG_ Voltage m0 : 8|8@1+ (1,0) [0|0] "V" Dashboard
 SG_ Current m1 : 8|16@1+ (0.5,0) [0|0] "A" Dashboard

BO_ 600 Wide: 20 Engine
 SG_ Last : 152|8@1- (1,0) [0|0] "" Dashboard
 SG_ Counter : 0|64@1+ (1,0) [0|0] "" Dashboard

BO_ 601 Padded: 10 Engine
 SG_ Tail : 72|8@1+ (1,0) [0|0] "" Dashboard

BO_ 700 Brake: 2 Engine
 SG_ Pressure : 0|8@1+ (1,0) [0|0] "bar" Dashboard
 SG_ Speed : 8|8@1+ (1,0) [0|0] "m/s" Dashboard

BO_ 2364540158 EEC1: 8 Engine
 SG_ EngineSpeed : 24|16@1+ (0.125,0) [0|8031.875] "rpm" Dashboard

BO_ 2565537790 Request: 3 Engine
 SG_ Number : 0|24@1+ (1,0) [0|0] "" Dashboard

VAL_ 291 Gear 0 "Park" 4 "Drive" ;
BA_DEF_ BO_ "VFrameFormat" ENUM "StandardCAN","ExtendedCAN","reserved","J1939PG","StandardCAN_FD";
BA_DEF_DEF_ "VFrameFormat" "StandardCAN";
BA_ "VFrameFormat" BO_ 2364540158 3;
BA_ "VFrameFormat" BO_ 2565537790 3;
BA_ "VFrameFormat" BO_ 600 4;
BA_ "VFrameFormat" BO_ 601 4;
"""
